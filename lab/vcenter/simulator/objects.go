package main

import (
	"bytes"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/google/uuid"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// VVOL and vSAN keep objects. The first folder of a path there is an object's UUID, and its
// friendly name an alias: a symbolic link beside it, as on a real host. Both spellings open a file.

var homePath = regexp.MustCompile(`<vmPathName>\[([^\]]+)\]\s*([^<]*)</vmPathName>`)

func keepsObjects(ds *simulator.Datastore) bool {
	return !*ds.Capability.TopLevelDirectoryCreateSupported
}

func root(ds *simulator.Datastore) string { return ds.Info.GetDatastoreInfo().Url }

// namespace makes a folder of that friendly name, or of the next one that is free.
func namespace(ds *simulator.Datastore, friendly string) (id, name string, err error) {
	id, name = uuid.New().String(), friendly
	if err = os.Mkdir(path.Join(root(ds), id), 0o755); err != nil {
		return
	}
	for n := 1; ; n++ {
		if err = os.Symlink(id, path.Join(root(ds), name)); !os.IsExist(err) {
			return
		}
		name = friendly + "_" + string(rune('0'+n))
	}
}

// friendlyNames: by object id.
func friendlyNames(ds *simulator.Datastore) map[string]string {
	names := map[string]string{}
	entries, _ := os.ReadDir(root(ds))
	for _, entry := range entries {
		if id, err := os.Readlink(path.Join(root(ds), entry.Name())); err == nil {
			names[id] = entry.Name()
		}
	}
	return names
}

// dropAliases removes the friendly names of what is gone.
func dropAliases(ds *simulator.Datastore) {
	for id, name := range friendlyNames(ds) {
		if _, err := os.Stat(path.Join(root(ds), id)); err != nil {
			_ = os.Remove(path.Join(root(ds), name))
		}
	}
}

// placeHome gives a machine that is to be made a folder on a datastore of objects.
func placeHome(body []byte, decoded types.AnyType) []byte {
	name, dc := newName(decoded), datacenterOf(madeIn(decoded))
	found := homePath.FindSubmatch(body)
	if name == "" || found == nil {
		return body
	}
	ds := find(dc, string(found[1]))
	if ds == nil || !keepsObjects(ds) {
		return body
	}
	id, _, err := namespace(ds, name)
	if err != nil {
		return body
	}
	home := "<vmPathName>[" + ds.Name + "] " + id + "/" + name + ".vmx</vmPathName>"
	return bytes.Replace(body, found[0], []byte(home), 1)
}

// madeIn is the folder in which the call makes a machine.
func madeIn(decoded types.AnyType) types.ManagedObjectReference {
	switch req := decoded.(type) {
	case *types.CreateVM_Task:
		return req.This
	case *types.ImportVApp:
		if req.Folder != nil {
			return *req.Folder
		}
		return req.This
	}
	return types.ManagedObjectReference{}
}

// refuseFolder: there are no folders at the top of such a datastore but those of objects.
func refuseFolder(req *types.MakeDirectory) types.BaseMethodFault {
	p := split(req.Name)
	ds := find(req.Datacenter, p.Datastore)
	if ds == nil || !keepsObjects(ds) {
		return nil
	}
	if _, err := os.Stat(path.Join(root(ds), strings.Split(p.Path, "/")[0])); err == nil {
		return nil
	}
	return &types.CannotCreateFile{FileFault: types.FileFault{File: req.Name}}
}

// refuseMove: on VVOL a file stays in the object that it is in.
func refuseMove(dc *types.ManagedObjectReference, from, to string) types.BaseMethodFault {
	source, target := split(from), split(to)
	for _, name := range []string{source.Datastore, target.Datastore} {
		if ds := find(dc, name); ds != nil && ds.Summary.Type == "VVOL" &&
			(source.Datastore != target.Datastore || objectOf(ds, source.Path) != objectOf(ds, target.Path)) {
			return &types.CannotAccessFile{FileFault: types.FileFault{File: to}}
		}
	}
	return nil
}

// refuseDelete: on VVOL an object goes with its machine, or as such, and not as a folder of files.
func refuseDelete(req *types.DeleteDatastoreFile_Task) types.BaseMethodFault {
	p := split(req.Name)
	ds := find(req.Datacenter, p.Datastore)
	if ds == nil || ds.Summary.Type != "VVOL" || strings.Contains(strings.Trim(p.Path, "/"), "/") {
		return nil
	}
	if found, err := os.Stat(path.Join(root(ds), p.Path)); err == nil && found.IsDir() {
		return &types.CannotDeleteFile{FileFault: types.FileFault{File: req.Name}}
	}
	return nil
}

// objectOf is the id of the one that a path begins with, whichever name the path has for it.
func objectOf(ds *simulator.Datastore, file string) string {
	first := strings.Split(file, "/")[0]
	if id, err := os.Readlink(path.Join(root(ds), first)); err == nil {
		return id
	}
	return first
}

// browsed shows the folders of objects as they are: by id, with the friendly name beside.
func browsed(id string) {
	task, ok := simulator.Map.Get(types.ManagedObjectReference{Type: "Task", Value: id}).(*simulator.Task)
	if !ok {
		return
	}
	result, ok := task.Info.Result.(types.HostDatastoreBrowserSearchResults)
	if !ok || split(result.FolderPath).Path != "" {
		return
	}
	ds, ok := simulator.Map.Get(*result.Datastore).(*simulator.Datastore)
	if !ok || !keepsObjects(ds) {
		return
	}
	names, ids := friendlyNames(ds), []types.BaseFileInfo{}
	for _, file := range result.File {
		info := file.GetFileInfo()
		if target, err := os.Readlink(path.Join(root(ds), info.Path)); err == nil && target != "" {
			continue
		}
		info.FriendlyName = names[info.Path]
		ids = append(ids, file)
	}
	result.File = ids
	simulator.Map.WithLock(task, func() { task.Info.Result = result })
}

// namespaces makes and deletes the folders at the top.
type namespaces struct{ mo.DatastoreNamespaceManager }

func addNamespaces() {
	simulator.Map.Put(&namespaces{mo.DatastoreNamespaceManager{Self: types.ManagedObjectReference{
		Type: "DatastoreNamespaceManager", Value: "DatastoreNamespaceManager"}}})
}

func (m *namespaces) CreateDirectory(req *types.CreateDirectory) soap.HasFault {
	body := &methods.CreateDirectoryBody{}
	ds, ok := simulator.Map.Get(req.Datastore).(*simulator.Datastore)
	if !ok || !keepsObjects(ds) {
		body.Fault_ = simulator.Fault("", &types.CannotCreateFile{FileFault: types.FileFault{File: req.DisplayName}})
		return body
	}
	if _, err := os.Lstat(path.Join(root(ds), req.DisplayName)); err == nil {
		body.Fault_ = simulator.Fault("", &types.FileAlreadyExists{FileFault: types.FileFault{File: req.DisplayName}})
		return body
	}
	id, _, err := namespace(ds, req.DisplayName)
	if err != nil {
		body.Fault_ = simulator.Fault("", &types.CannotCreateFile{FileFault: types.FileFault{File: req.DisplayName}})
		return body
	}
	body.Res = &types.CreateDirectoryResponse{Returnval: "/vmfs/volumes/" + ds.Name + "/" + id}
	return body
}

// real is where a file is on this machine, whatever it is called; its folder must be there.
func real(file string) string {
	if found, err := filepath.EvalSymlinks(path.Dir(file)); err == nil {
		return path.Join(found, path.Base(file))
	}
	return file
}
