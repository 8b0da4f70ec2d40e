package main

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"path"
	"regexp"
	"strings"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

var (
	methodName = regexp.MustCompile(`<(?:\w+:)?Body[^>]*>\s*<(?:\w+:)?(\w+)`)
	taskID     = regexp.MustCompile(`type="Task"[^>]*>([^<]+)<`)
	pbmCookie  = regexp.MustCompile(`<(?:\w+:)?vcSessionCookie[^>]*>"?([^<"]+)"?<`)
)

// gate stands before the simulator: every call passes here, twice.
type gate struct{ next http.Handler }

func (g *gate) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	switch {
	case req.URL.Path == "/lab":
		serveControl(w, req)
	case strings.HasPrefix(req.URL.Path, "/nfc/"):
		if !download(w, req) {
			g.upload(w, req)
		}
	case strings.HasSuffix(req.URL.Path, ".wsdl"), strings.HasSuffix(req.URL.Path, ".xsd"):
		serveWSDL(w, req)
	case req.URL.Path == "/sdk", req.URL.Path == "/pbm", req.URL.Path == "/pbm/sdk":
		g.call(w, req)
	default:
		g.next.ServeHTTP(w, req)
	}
}

func (g *gate) call(w http.ResponseWriter, req *http.Request) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return
	}
	req.Body = io.NopCloser(bytes.NewReader(body))
	if req.URL.Path == "/pbm/sdk" { // where clients look for it
		req.URL.Path = "/pbm"
	}
	if m := pbmCookie.FindSubmatch(body); m != nil { // the session comes in a header of its own
		req.Header.Del("Cookie")
		req.AddCookie(&http.Cookie{Name: soap.SessionCookieName, Value: string(m[1])})
	}
	method := ""
	if m := methodName.FindSubmatch(body); m != nil {
		method = string(m[1])
	}
	r := take(method, string(body))
	time.Sleep(time.Duration(r.DelayMs) * time.Millisecond)
	if instead(w, r) {
		return
	}
	body, keys := adapt(method, body)
	req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	decoded := decode(method, body)
	if move, ok := decoded.(*types.RelocateVM_Task); ok && r.Idle {
		move.Spec = types.VirtualMachineRelocateSpec{}
	}
	rec := &recorder{header: http.Header{}, status: http.StatusOK}
	g.carryOut(rec, req, method, body, decoded)
	rec.rewrite(func(reply []byte) []byte { return keyed(reply, keys) })
	if m := taskID.FindSubmatch(rec.Bytes()); m != nil {
		if method == "SearchDatastore_Task" {
			browsed(string(m[1]))
		}
		hold(string(m[1]), r)
	}
	if r.LeaseHost != "" {
		rec.rewrite(func(reply []byte) []byte {
			return bytes.ReplaceAll(reply, []byte("https://*/"), []byte("https://"+r.LeaseHost+"/"))
		})
	}
	time.Sleep(time.Duration(r.ReplyMs) * time.Millisecond)
	if r.DropAfter {
		cut(w)
		return
	}
	rec.replay(w)
}

func (g *gate) carryOut(rec *recorder, req *http.Request, method string, body []byte, decoded types.AnyType) {
	if newName(decoded) != "" { // one at a time: names are taken once
		naming.Lock()
		defer naming.Unlock()
	}
	if _, ok := decoded.(*types.ReconfigVM_Task); ok { // the version is looked at and changed at once
		reconfiguring.Lock()
		defer reconfiguring.Unlock()
	}
	if fault := refusal(decoded); fault != nil {
		rec.refuse(method, decoded, fault)
		return
	}
	if export, ok := decoded.(*types.ExportVm); ok {
		if vm, ok := simulator.Map.Get(export.This).(*simulator.VirtualMachine); ok {
			exportVM(rec, vm)
			return
		}
	}
	placed := placeHome(body, decoded)
	req.Body, req.ContentLength = io.NopCloser(bytes.NewReader(placed)), int64(len(placed))
	g.next.ServeHTTP(rec, req)
	settle(decoded)
}

// decode returns the typed request of the calls that are looked into; nil for the others.
func decode(method string, body []byte) types.AnyType {
	switch method {
	case "CreateVM_Task", "ImportVApp", "ReconfigVM_Task", "RelocateVM_Task", "Destroy_Task",
		"CreateVirtualDisk_Task", "ExtendVirtualDisk_Task", "DeleteVirtualDisk_Task",
		"MoveVirtualDisk_Task", "CopyVirtualDisk_Task", "DeleteDatastoreFile_Task", "MakeDirectory",
		"MoveDatastoreFile_Task", "CopyDatastoreFile_Task", "CloneVM_Task", "ExportVm":
		decoded, err := simulator.UnmarshalBody(typeNamed, body)
		if err == nil {
			return decoded.Body
		}
	}
	return nil
}

// instead answers in place of the call, if the rule says so.
func instead(w http.ResponseWriter, r rule) bool {
	switch {
	case r.Drop:
		cut(w)
	case r.Status != 0:
		w.WriteHeader(r.Status)
	case r.Fault != "":
		writeFault(w, r.Fault, "injected "+r.Fault)
	default:
		return false
	}
	return true
}

func cut(w http.ResponseWriter) {
	if conn, _, err := w.(http.Hijacker).Hijack(); err == nil {
		_ = conn.Close()
	}
}

// recorder keeps a reply until it is known what becomes of it.
type recorder struct {
	bytes.Buffer
	header http.Header
	status int
}

func (r *recorder) Header() http.Header    { return r.header }
func (r *recorder) WriteHeader(status int) { r.status = status }

// rewrite changes a reply.
func (r *recorder) rewrite(change func([]byte) []byte) {
	changed := change(append([]byte{}, r.Bytes()...))
	r.Reset()
	_, _ = r.Write(changed)
	r.header.Del("Content-Length")
}

func (r *recorder) replay(w http.ResponseWriter) {
	for name, values := range r.header {
		w.Header()[name] = values
	}
	w.WriteHeader(r.status)
	_, _ = w.Write(r.Bytes())
}

// refuse answers with a task that failed, as vCenter does, or with the fault where there is no task.
func (r *recorder) refuse(method string, body types.AnyType, fault types.BaseMethodFault) {
	if !strings.HasSuffix(method, "_Task") {
		writeFault(r, strings.TrimPrefix(fmt.Sprintf("%T", fault), "*types."), "refused")
		return
	}
	name := strings.TrimSuffix(method, "_Task")
	of := simulator.Map.Get(simulator.Map.VirtualDiskManager().Reference())
	switch req := body.(type) {
	case *types.ReconfigVM_Task:
		of = simulator.Map.Get(req.This)
	case *types.RelocateVM_Task:
		of = simulator.Map.Get(req.This)
	}
	task := simulator.CreateTask(of, name, func(*simulator.Task) (types.AnyType, types.BaseMethodFault) {
		return nil, fault
	})
	r.header.Set("Content-Type", "text/xml; charset=utf-8")
	fmt.Fprintf(r, `<?xml version="1.0" encoding="UTF-8"?><soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"><soapenv:Body><%[1]sResponse xmlns="urn:vim25"><returnval type="Task">%[2]s</returnval></%[1]sResponse></soapenv:Body></soapenv:Envelope>`,
		method, task.Run().Value)
}

// Fields without which clients refuse the fault.
var mandatory = map[string]string{
	"InvalidArgument":  "<invalidProperty>capacity</invalidProperty>",
	"NotAuthenticated": `<object type="ServiceInstance">ServiceInstance</object><privilegeId>System.View</privilegeId>`,
	"NoPermission":     `<object type="ServiceInstance">ServiceInstance</object><privilegeId>System.View</privilegeId>`,
	"NoDiskSpace":      "<file>[store]</file><datastore>store</datastore>",
	"DuplicateName":    `<name>taken</name><object type="VirtualMachine">vm-1</object>`,
	"FileLocked":       "<file>[store] disk.vmdk</file>",
	"FileNotFound":     "<file>[store] disk.vmdk</file>",
	"SystemError":      "<reason>injected</reason>",
	"TaskInProgress":   `<task type="Task">task-1</task>`,
}

func writeFault(w http.ResponseWriter, name, text string) {
	w.Header().Set("Content-Type", "text/xml; charset=utf-8")
	w.WriteHeader(http.StatusInternalServerError)
	fmt.Fprintf(w, `<?xml version="1.0" encoding="UTF-8"?><soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/" xmlns:xsi="http://www.w3.org/2001/XMLSchema-instance"><soapenv:Body><soapenv:Fault><faultcode>ServerFaultCode</faultcode><faultstring>%[1]s</faultstring><detail><%[2]sFault xmlns="urn:vim25" xsi:type="%[2]s">%[3]s</%[2]sFault></detail></soapenv:Fault></soapenv:Body></soapenv:Envelope>`,
		text, name, mandatory[name])
}

// upload passes a transfer on, and remembers how much there was of what.
func (g *gate) upload(w http.ResponseWriter, req *http.Request) {
	r := take("upload", "")
	time.Sleep(time.Duration(r.DelayMs) * time.Millisecond)
	if instead(w, r) {
		return
	}
	sum := sha256.New()
	counted := &counter{}
	began := &beginning{}
	req.Body = io.NopCloser(io.TeeReader(req.Body, io.MultiWriter(sum, counted, began)))
	rec := &recorder{header: http.Header{}, status: http.StatusOK}
	g.next.ServeHTTP(rec, req)
	if capacity := capacityOf(began.data); capacity > 0 {
		uploaded(path.Base(req.URL.Path), capacity)
	}
	control.Lock()
	if control.uploads == nil {
		control.uploads = map[string]upload{}
	}
	control.uploads[req.URL.Path] = upload{counted.bytes, hex.EncodeToString(sum.Sum(nil))}
	control.Unlock()
	if r.DropAfter {
		cut(w)
		return
	}
	rec.replay(w)
}

type counter struct{ bytes int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.bytes += int64(len(p))
	return len(p), nil
}
