package main

import (
	"encoding/json"
	"os"
	"path/filepath"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/types"
)

// spec describes a datastore; Hosts empty: all of them.
type spec struct {
	Name, Type, Maintenance string
	Provisioning            string // thick or thin: the only kind of disks that it makes
	Config                  string // of a machine: readable, inaccessible or new
	Capacity, Free          int64
	Accessible              *bool
	Hosts                   []string
}

var provisioning = map[types.ManagedObjectReference]string{}

func addDatastores(dir, file string) error {
	if file == "" {
		return nil
	}
	data, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	var specs []spec
	if err := json.Unmarshal(data, &specs); err != nil {
		return err
	}
	for n, entity := range simulator.Map.All("Datacenter") {
		dc := entity.(*simulator.Datacenter)
		in := dir
		if n > 0 {
			in = filepath.Join(dir, "datacenter-"+dc.Name)
		}
		for _, s := range specs {
			if err := addDatastore(dc, filepath.Join(in, s.Name), s); err != nil {
				return err
			}
		}
	}
	return nil
}

// datacenterOf is where an object is; nil: in none.
func datacenterOf(ref types.ManagedObjectReference) *types.ManagedObjectReference {
	for at := &ref; at != nil; {
		if at.Type == "Datacenter" {
			return at
		}
		entity, ok := simulator.Map.Get(*at).(mo.Entity)
		if !ok {
			return nil
		}
		at = entity.Entity().Parent
	}
	return nil
}

// addDatastore makes one through each host's datastore system, and turns it into what is wanted.
func addDatastore(dc *simulator.Datacenter, path string, s spec) error {
	if err := os.MkdirAll(path, 0o755); err != nil {
		return err
	}
	var ds *simulator.Datastore
	var mounts []types.DatastoreHostMount
	for _, entity := range simulator.Map.All("HostSystem") {
		host := entity.(*simulator.HostSystem)
		if in := datacenterOf(host.Self); in == nil || *in != dc.Self {
			continue
		}
		if len(s.Hosts) > 0 && !contains(s.Hosts, host.Name) {
			continue
		}
		found, err := mount(host, path, s)
		if err != nil {
			return err
		}
		ds = found
		mounts = append(mounts, types.DatastoreHostMount{Key: host.Self, MountInfo: types.HostMountInfo{
			AccessMode: "readWrite", Mounted: types.NewBool(true), Accessible: types.NewBool(true)}})
	}
	if ds == nil {
		if len(s.Hosts) > 0 { // they are in another datacenter
			return nil
		}
		return fail("no host for %s", s.Name)
	}
	ds.Host = mounts
	ds.Info = info(s, path)
	ds.Capability.TopLevelDirectoryCreateSupported = types.NewBool(s.Type != "VVOL" && s.Type != "vsan")
	ds.Capability.PerFileThinProvisioningSupported = s.Provisioning != "thick"
	provisioning[ds.Self] = s.Provisioning
	ds.Summary.MultipleHostAccess = types.NewBool(len(mounts) > 1)
	apply(ds, s)
	return nil
}

func mount(host *simulator.HostSystem, path string, s spec) (*simulator.Datastore, error) {
	system := simulator.Map.Get(*host.ConfigManager.DatastoreSystem).(*simulator.HostDatastoreSystem)
	ctx := &simulator.Context{
		Map: simulator.Map, Session: &simulator.Session{Registry: simulator.NewRegistry()}}
	res := system.CreateNasDatastore(ctx, &types.CreateNasDatastore{
		This: system.Self,
		Spec: types.HostNasVolumeSpec{
			RemoteHost: "storage", RemotePath: "/" + s.Name, LocalPath: path, Type: s.Type},
	})
	if fault := res.Fault(); fault != nil {
		return nil, fail("%s on %s: %s", s.Name, host.Name, fault.String)
	}
	ref := res.(*methods.CreateNasDatastoreBody).Res.Returnval
	return simulator.Map.Get(ref).(*simulator.Datastore), nil
}

func info(s spec, path string) types.BaseDatastoreInfo {
	base := types.DatastoreInfo{Name: s.Name, Url: path}
	switch s.Type {
	case "VVOL":
		volume := types.HostFileSystemVolume{Type: "VVOL", Name: s.Name, Capacity: s.Capacity}
		return &types.VvolDatastoreInfo{DatastoreInfo: base, VvolDS: &types.HostVvolVolume{
			HostFileSystemVolume: volume, ScId: "vvol:" + s.Name}}
	case "VMFS":
		return &types.VmfsDatastoreInfo{DatastoreInfo: base}
	}
	return &types.NasDatastoreInfo{DatastoreInfo: base}
}

// apply changes what is set in s.
func apply(ds *simulator.Datastore, s spec) {
	summary := ds.Summary
	if s.Capacity > 0 {
		summary.Capacity = s.Capacity
		disks.setRoom(ds, s.Free)
		summary.FreeSpace = disks.free(ds)
	}
	if s.Accessible != nil {
		summary.Accessible = *s.Accessible
	}
	if s.Maintenance != "" {
		summary.MaintenanceMode = s.Maintenance
	}
	simulator.Map.Update(ds, []types.PropertyChange{{Name: "summary", Val: summary}})
}

// find looks in one datacenter, or in all; nil: there is none.
func find(dc *types.ManagedObjectReference, name string) *simulator.Datastore {
	for _, entity := range simulator.Map.All("Datastore") {
		ds := entity.(*simulator.Datastore)
		if in := datacenterOf(ds.Self); ds.Name == name && (dc == nil || (in != nil && *in == *dc)) {
			return ds
		}
	}
	return nil
}

func contains(list []string, one string) bool {
	for _, each := range list {
		if each == one {
			return true
		}
	}
	return false
}
