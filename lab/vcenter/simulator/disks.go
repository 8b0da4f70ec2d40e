package main

import (
	"os"
	"path"
	"strings"
	"sync"

	"github.com/google/uuid"
	"github.com/vmware/govmomi/object"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// A disk, by the file that it is, whatever it is called. The stock simulator keeps neither of these.
type disk struct {
	size  int64
	uuid  string
	store *simulator.Datastore
}

type registry struct {
	sync.Mutex
	byPath map[string]*disk
	room   map[types.ManagedObjectReference]int64 // what is free on a datastore without any disk
}

var disks = &registry{byPath: map[string]*disk{}, room: map[types.ManagedObjectReference]int64{}}

func (r *registry) setRoom(ds *simulator.Datastore, free int64) {
	r.Lock()
	defer r.Unlock()
	r.room[ds.Self] = free + r.used(ds)
}

func (r *registry) free(ds *simulator.Datastore) int64 {
	r.Lock()
	defer r.Unlock()
	return r.room[ds.Self] - r.used(ds)
}

func (r *registry) used(ds *simulator.Datastore) (sum int64) {
	for _, d := range r.byPath {
		if d.store == ds {
			sum += d.size
		}
	}
	return
}

// see notes a disk and its size, if that is told, and drops it once its file is gone.
func (r *registry) see(dc *types.ManagedObjectReference, file string, size int64) *disk {
	at, ds := local(dc, file)
	r.Lock()
	defer r.Unlock()
	if _, err := os.Stat(at); err != nil || ds == nil {
		delete(r.byPath, at)
		return nil
	}
	d := r.byPath[at]
	if d == nil {
		d = &disk{uuid: newUUID(), store: ds}
		r.byPath[at] = d
	}
	if size > 0 {
		d.size = size
	}
	return d
}

func (r *registry) size(dc *types.ManagedObjectReference, file string) int64 {
	at, _ := local(dc, file)
	r.Lock()
	defer r.Unlock()
	if d := r.byPath[at]; d != nil {
		return d.size
	}
	return 0
}

// move renames a disk's files.
func (r *registry) move(dc *types.ManagedObjectReference, from, to string) error {
	old, _ := local(dc, from)
	fresh, ds := local(dc, to)
	if err := os.MkdirAll(path.Dir(fresh), 0o755); err != nil {
		return err
	}
	for _, suffix := range []string{".vmdk", "-flat.vmdk"} {
		was, is := strings.TrimSuffix(old, ".vmdk"), strings.TrimSuffix(fresh, ".vmdk")
		if err := os.Rename(was+suffix, is+suffix); err != nil {
			return err
		}
	}
	r.Lock()
	defer r.Unlock()
	if d := r.byPath[old]; d != nil {
		delete(r.byPath, old)
		d.store = ds
		r.byPath[fresh] = d
	}
	return nil
}

// settle forgets the disks whose files are gone, and tells every datastore its free space.
func (r *registry) settle() {
	r.Lock()
	for at := range r.byPath {
		if _, err := os.Stat(at); err != nil {
			delete(r.byPath, at)
		}
	}
	r.Unlock()
	for _, entity := range simulator.Map.All("Datastore") {
		ds := entity.(*simulator.Datastore)
		if _, ours := r.room[ds.Self]; !ours {
			continue
		}
		if keepsObjects(ds) {
			dropAliases(ds)
		}
		if free := r.free(ds); free != ds.Summary.FreeSpace {
			simulator.Map.WithLock(ds, func() {
				summary := ds.Summary
				summary.FreeSpace = free
				simulator.Map.Update(ds, []types.PropertyChange{{Name: "summary", Val: summary}})
			})
		}
	}
}

func split(file string) object.DatastorePath {
	var p object.DatastorePath
	p.FromString(file)
	return p
}

// local is the file on this machine, and its datastore; nil: there is none.
func local(dc *types.ManagedObjectReference, file string) (string, *simulator.Datastore) {
	p := split(file)
	ds := find(dc, p.Datastore)
	if ds == nil {
		return "/nowhere", nil
	}
	return real(path.Join(root(ds), p.Path)), ds
}

// manager is the stock one with ExtendVirtualDisk_Task, and UUIDs that move with their disks.
type manager struct{ simulator.VirtualDiskManager }

func addDiskManager() {
	stock := simulator.Map.VirtualDiskManager().(*simulator.VirtualDiskManager)
	simulator.Map.Put(&manager{*stock})
}

func (m *manager) ExtendVirtualDiskTask(ctx *simulator.Context, req *types.ExtendVirtualDisk_Task) soap.HasFault {
	task := simulator.CreateTask(m, "extendVirtualDisk", func(*simulator.Task) (types.AnyType, types.BaseMethodFault) {
		if disks.see(req.Datacenter, req.Name, 0) == nil {
			return nil, &types.FileNotFound{FileFault: types.FileFault{File: req.Name}}
		}
		if req.NewCapacityKb*1024 < disks.size(req.Datacenter, req.Name) {
			return nil, &types.InvalidArgument{InvalidProperty: "newCapacityKb"}
		}
		disks.see(req.Datacenter, req.Name, req.NewCapacityKb*1024)
		return nil, nil
	})
	return &methods.ExtendVirtualDisk_TaskBody{
		Res: &types.ExtendVirtualDisk_TaskResponse{Returnval: task.Run()}}
}

func (m *manager) CopyVirtualDiskTask(ctx *simulator.Context, req *types.CopyVirtualDisk_Task) soap.HasFault {
	if req.DestDatacenter == nil {
		req.DestDatacenter = req.SourceDatacenter
	}
	stock := m.VirtualDiskManager.CopyVirtualDiskTask(ctx, req)
	disks.see(req.DestDatacenter, req.DestName, disks.size(req.SourceDatacenter, req.SourceName))
	return stock
}

func (m *manager) MoveVirtualDiskTask(ctx *simulator.Context, req *types.MoveVirtualDisk_Task) soap.HasFault {
	if req.DestDatacenter == nil {
		req.DestDatacenter = req.SourceDatacenter
	}
	was := disks.see(req.SourceDatacenter, req.SourceName, 0)
	stock := m.VirtualDiskManager.MoveVirtualDiskTask(ctx, req)
	if is := disks.see(req.DestDatacenter, req.DestName, 0); was != nil && is != nil && is != was {
		is.size, is.uuid = was.size, was.uuid
	}
	disks.see(req.SourceDatacenter, req.SourceName, 0)
	return stock
}

func (m *manager) QueryVirtualDiskUuid(ctx *simulator.Context, req *types.QueryVirtualDiskUuid) soap.HasFault {
	stock := m.VirtualDiskManager.QueryVirtualDiskUuid(ctx, req)
	if body, ok := stock.(*methods.QueryVirtualDiskUuidBody); ok && body.Res != nil {
		if d := disks.see(req.Datacenter, req.Name, 0); d != nil {
			body.Res.Returnval = spaced(d.uuid)
		}
	}
	return stock
}

// newUUID is as vSphere makes them: they begin alike, with a capital letter.
func newUUID() string { return "6000C29" + uuid.New().String()[7:] }

// spaced is how the disk manager tells a UUID; in a machine's description it has hyphens.
func spaced(id string) string {
	plain := strings.ReplaceAll(id, "-", "")
	var pairs []string
	for n := 0; n < len(plain); n += 2 {
		pairs = append(pairs, plain[n:n+2])
	}
	return strings.Join(pairs[:8], " ") + "-" + strings.Join(pairs[8:], " ")
}

// taskFixer drops TaskInfo.entity where it is no ManagedEntity (govmomi#1357): pyVmomi rightly
// refuses such a reply.
type taskFixer struct{}

func (taskFixer) Reference() types.ManagedObjectReference {
	return types.ManagedObjectReference{Type: "Lab", Value: "taskFixer"}
}

func (taskFixer) PutObject(o mo.Reference) {
	if task, ok := o.(*simulator.Task); ok && task.Info.Entity != nil {
		switch task.Info.Entity.Type {
		case "VirtualDiskManager", "FileManager", "HostDatastoreBrowser", "VcenterVStorageObjectManager":
			task.Info.Entity = nil
		}
	}
}
func (taskFixer) UpdateObject(mo.Reference, []types.PropertyChange) {}
func (taskFixer) RemoveObject(types.ManagedObjectReference)         {}
