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

// A disk, by its path "[datastore] folder/name.vmdk". The stock simulator keeps neither of these.
type disk struct {
	size int64
	uuid string
}

type registry struct {
	sync.Mutex
	byPath map[string]*disk
	room   map[string]int64 // what is free on a datastore without any disk
}

var disks = &registry{byPath: map[string]*disk{}, room: map[string]int64{}}

func (r *registry) setRoom(name string, free int64) {
	r.Lock()
	defer r.Unlock()
	r.room[name] = free
	for file, d := range r.byPath {
		if split(file).Datastore == name {
			r.room[name] += d.size
		}
	}
}

func (r *registry) free(name string) int64 {
	r.Lock()
	defer r.Unlock()
	free := r.room[name]
	for file, d := range r.byPath {
		if split(file).Datastore == name {
			free -= d.size
		}
	}
	return free
}

// see notes a disk and its size, if that is told, and drops it once its file is gone.
func (r *registry) see(file string, size int64) *disk {
	r.Lock()
	defer r.Unlock()
	if _, err := os.Stat(local(file)); err != nil {
		delete(r.byPath, file)
		return nil
	}
	d := r.byPath[file]
	if d == nil {
		d = &disk{uuid: uuid.New().String()}
		r.byPath[file] = d
	}
	if size > 0 {
		d.size = size
	}
	return d
}

func (r *registry) size(file string) int64 {
	r.Lock()
	defer r.Unlock()
	if d := r.byPath[file]; d != nil {
		return d.size
	}
	return 0
}

// move renames a disk's files.
func (r *registry) move(from, to string) error {
	if err := os.MkdirAll(path.Dir(local(to)), 0o755); err != nil {
		return err
	}
	for _, suffix := range []string{".vmdk", "-flat.vmdk"} {
		old, fresh := strings.TrimSuffix(local(from), ".vmdk"), strings.TrimSuffix(local(to), ".vmdk")
		if err := os.Rename(old+suffix, fresh+suffix); err != nil {
			return err
		}
	}
	r.Lock()
	defer r.Unlock()
	if d := r.byPath[from]; d != nil {
		delete(r.byPath, from)
		r.byPath[to] = d
	}
	return nil
}

// settle forgets the disks whose files are gone, and tells every datastore its free space.
func (r *registry) settle() {
	r.Lock()
	var files []string
	for file := range r.byPath {
		files = append(files, file)
	}
	r.Unlock()
	for _, file := range files {
		r.see(file, 0)
	}
	for _, entity := range simulator.Map.All("Datastore") {
		ds := entity.(*simulator.Datastore)
		if _, ours := r.room[ds.Name]; !ours {
			continue
		}
		if free := r.free(ds.Name); free != ds.Summary.FreeSpace {
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

func local(file string) string {
	p := split(file)
	ds := named(p.Datastore)
	if ds == nil {
		return "/nowhere"
	}
	return path.Join(ds.Info.GetDatastoreInfo().Url, p.Path)
}

// manager is the stock one with ExtendVirtualDisk_Task, and UUIDs that move with their disks.
type manager struct{ simulator.VirtualDiskManager }

func addDiskManager() {
	stock := simulator.Map.VirtualDiskManager().(*simulator.VirtualDiskManager)
	simulator.Map.Put(&manager{*stock})
}

func (m *manager) ExtendVirtualDiskTask(ctx *simulator.Context, req *types.ExtendVirtualDisk_Task) soap.HasFault {
	task := simulator.CreateTask(m, "extendVirtualDisk", func(*simulator.Task) (types.AnyType, types.BaseMethodFault) {
		if disks.see(req.Name, 0) == nil {
			return nil, &types.FileNotFound{FileFault: types.FileFault{File: req.Name}}
		}
		if req.NewCapacityKb*1024 < disks.size(req.Name) {
			return nil, &types.InvalidArgument{InvalidProperty: "newCapacityKb"}
		}
		disks.see(req.Name, req.NewCapacityKb*1024)
		return nil, nil
	})
	return &methods.ExtendVirtualDisk_TaskBody{
		Res: &types.ExtendVirtualDisk_TaskResponse{Returnval: task.Run()}}
}

func (m *manager) QueryVirtualDiskUuid(ctx *simulator.Context, req *types.QueryVirtualDiskUuid) soap.HasFault {
	stock := m.VirtualDiskManager.QueryVirtualDiskUuid(ctx, req)
	if body, ok := stock.(*methods.QueryVirtualDiskUuidBody); ok && body.Res != nil {
		if d := disks.see(req.Name, 0); d != nil {
			body.Res.Returnval = d.uuid
		}
	}
	return stock
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
