// A stand-in for vCenter: govmomi's simulator (Debian's library, 0.24.2) with what it lacks.
//
// Added here: datastores of any type from a JSON file, VVOL among them; folders named
// by their object's UUID on VVOL and vSAN, with a friendly name beside; datastores that make thick or thin
// disks only; UUIDs of disks as the disk manager tells them, with blanks, and as machines do, with
// hyphens; machines in folders for machines only; the 1 MiB rule for every way to set a disk's size; the sizes, UUIDs, locks and places of disks; free space; extending and
// relocating disks; names that are taken once; the bytes that are uploaded through a lease; storage
// policies; slow tasks and faults on demand, through /lab; what clients on suds need (suds.go), the API's
// description among it; machines that are exported, as the headers of their disks (export.go).
//
// Known: the calls, their types and most faults (govmomi's simulator follows vCenter's API); that
// VVOL datastores refuse disks that are no whole number of MiB (VMware's pages on Virtual Volumes).
//
// Assumed, where no page tells: that the refusal is a task that ends with InvalidArgument; that a
// lock shows as FileLocked when the second running VM adds the disk; that on VVOL a file stays in the object
// that it is in, and an object is not deleted as a folder of files.
//
// Not like a real vCenter: no network latency; tasks run within the call that makes them, and only
// look slow; all disks count with their full size; objects are files in the folder
// with their UUID, and a disk is attached under the name that it was asked for by; a snapshot makes no delta
// disks; storage policies match by datastore type; an encrypted disk is not known;
// a machine
// without a configuration is not found by its UUID; permissions are not checked; a name is taken in all folders, not in its own; the 1 MiB rule does not
// hold for clones and first-class disks; uploads are measured, give their disk its capacity, and are thrown away.
package main

import (
	"crypto/tls"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"log"
	"net/url"
	"os"

	"github.com/vmware/govmomi/simulator"
)

var wsdl = flag.String("wsdl", "", "folder with the description of the API for clients that ask for it")

func main() {
	model := simulator.VPX()
	listen := flag.String("listen", "127.0.0.1:0", "address")
	dir := flag.String("dir", "", "folder for what is on the datastores")
	stores := flag.String("datastores", "", "JSON file: a list of datastores")
	idle := flag.Duration("idle", 0, "how long a session may be silent")
	user := flag.String("user", "lab", "who may log in")
	password := flag.String("password", "lab", "with which password")
	cert := flag.String("cert", "", "certificate (PEM)")
	key := flag.String("key", "", "its key (PEM)")
	flag.IntVar(&model.Cluster, "clusters", 1, "")
	flag.IntVar(&model.ClusterHost, "hosts", 3, "of each cluster")
	flag.IntVar(&model.Machine, "vms", 2, "of each cluster, host and vApp")
	flag.IntVar(&model.Datacenter, "datacenters", 1, "each with all datastores")
	flag.IntVar(&model.Host, "standalone", 0, "hosts in no cluster")
	flag.IntVar(&model.Pool, "pools", 0, "resource pools of each cluster")
	flag.IntVar(&model.App, "vapps", 0, "of each cluster")
	flag.IntVar(&model.Folder, "folders", 0, "datacenters that lie in folders of their own")
	flag.Parse()

	model.Datastore = 1
	simulator.SessionIdleTimeout = *idle
	check(model.Create())
	check(addDatastores(*dir, *stores))
	addDiskManager()
	addNamespaces()
	addSearchIndex()
	versionMachines()
	addExtensions()
	simulator.Map.AddHandler(taskFixer{})
	addPolicies(model.Service)

	pair, err := tls.LoadX509KeyPair(*cert, *key)
	check(err)
	model.Service.TLS = &tls.Config{Certificates: []tls.Certificate{pair}}
	model.Service.Listen = &url.URL{Host: *listen, User: url.UserPassword(*user, *password)}
	server := model.Service.NewServer()
	server.Config.Handler = &gate{next: server.Config.Handler}
	check(json.NewEncoder(os.Stdout).Encode(map[string]string{"port": server.URL.Port()}))

	// Its life is that of whoever holds the other end.
	_, _ = io.Copy(io.Discard, os.Stdin)
	model.Remove()
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func fail(format string, args ...interface{}) error { return fmt.Errorf(format, args...) }
