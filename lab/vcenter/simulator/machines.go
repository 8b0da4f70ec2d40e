package main

import (
	"os"
	"path"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

const mebibyte = 1 << 20

var naming, reconfiguring sync.Mutex

// newName is the name of the machine that the call makes; "": none.
func newName(body types.AnyType) string {
	switch req := body.(type) {
	case *types.CreateVM_Task:
		return req.Config.Name
	case *types.ImportVApp:
		if spec, ok := req.Spec.(*types.VirtualMachineImportSpec); ok {
			return spec.ConfigSpec.Name
		}
	}
	return ""
}

// refusal is the fault that a real vCenter would give and the stock simulator does not; nil: none.
func refusal(body types.AnyType) types.BaseMethodFault {
	if name := newName(body); name != "" {
		for _, entity := range simulator.Map.All("VirtualMachine") {
			if vm := entity.(*simulator.VirtualMachine); vm.Name == name {
				return &types.DuplicateName{Name: name, Object: vm.Self}
			}
		}
	}
	if folder, ok := simulator.Map.Get(madeIn(body)).(*simulator.Folder); ok && !holdsMachines(folder) {
		return &types.NotSupported{}
	}
	switch req := body.(type) {
	case *types.CreateVM_Task:
		return refuseSpec(datacenterOf(req.This), &req.Config, nil)
	case *types.ImportVApp:
		if spec, ok := req.Spec.(*types.VirtualMachineImportSpec); ok {
			return refuseSpec(datacenterOf(req.This), &spec.ConfigSpec, nil)
		}
	case *types.ReconfigVM_Task:
		if vm, ok := simulator.Map.Get(req.This).(*simulator.VirtualMachine); ok {
			if asked := req.Spec.ChangeVersion; asked != "" && asked != vm.Config.ChangeVersion {
				return &types.ConcurrentAccess{}
			}
			return refuseSpec(datacenterOf(vm.Self), &req.Spec, vm)
		}
	case *types.CreateVirtualDisk_Task:
		if spec, ok := req.Spec.(types.BaseFileBackedVirtualDiskSpec); ok {
			return refuseSize(store(req.Datacenter, req.Name), spec.GetFileBackedVirtualDiskSpec().CapacityKb*1024, 0)
		}
	case *types.ExtendVirtualDisk_Task:
		return refuseSize(store(req.Datacenter, req.Name), req.NewCapacityKb*1024,
			disks.size(req.Datacenter, req.Name))
	case *types.DeleteVirtualDisk_Task:
		if holder(req.Datacenter, req.Name, nil) != nil {
			return &types.FileLocked{FileFault: types.FileFault{File: req.Name}}
		}
	case *types.MakeDirectory:
		return refuseFolder(req)
	case *types.CopyVirtualDisk_Task:
		to := req.DestDatacenter
		if to == nil {
			to = req.SourceDatacenter
		}
		return refuseSize(store(to, req.DestName), disks.size(req.SourceDatacenter, req.SourceName), 0)
	case *types.MoveVirtualDisk_Task:
		return refuseMove(req.SourceDatacenter, req.SourceName, req.DestName)
	case *types.MoveDatastoreFile_Task:
		return refuseMove(req.SourceDatacenter, req.SourceName, req.DestinationName)
	case *types.DeleteDatastoreFile_Task:
		return refuseDelete(req)
	case *types.RelocateVM_Task:
		if vm, ok := simulator.Map.Get(req.This).(*simulator.VirtualMachine); ok {
			return refuseRelocate(vm, req.Spec)
		}
	}
	return nil
}

func holdsMachines(folder *simulator.Folder) bool {
	return contains(folder.ChildType, "VirtualMachine")
}

// refuseProvisioning: packer-builder-vsphere#147 tells of a "general system error".
func refuseProvisioning(ds *simulator.Datastore, d *types.VirtualDisk) types.BaseMethodFault {
	flat, ok := d.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
	if !ok || ds == nil || flat.ThinProvisioned == nil {
		return nil
	}
	if only := provisioning[ds.Self]; only != "" && (only == "thin") != *flat.ThinProvisioned {
		return &types.SystemError{Reason: "the disk cannot be created"}
	}
	return nil
}

func refuseSpec(dc *types.ManagedObjectReference, spec *types.VirtualMachineConfigSpec,
	vm *simulator.VirtualMachine) types.BaseMethodFault {
	home := ""
	if spec.Files != nil {
		home = split(spec.Files.VmPathName).Datastore
	} else if vm != nil {
		home = split(vm.Config.Files.VmPathName).Datastore
	}
	for _, change := range spec.DeviceChange {
		c := change.GetVirtualDeviceConfigSpec()
		d, ok := c.Device.(*types.VirtualDisk)
		if !ok || c.Operation == types.VirtualDeviceConfigSpecOperationRemove {
			continue
		}
		file, on := backing(d)
		if on == "" {
			on = home
		}
		existing := c.Operation == types.VirtualDeviceConfigSpecOperationAdd && c.FileOperation == ""
		if existing {
			if other := holder(dc, file, vm); other != nil && vm != nil && isOn(vm) && isOn(other) &&
				!(isShared(d) && isShared(diskOf(other, file))) {
				return &types.FileLocked{FileFault: types.FileFault{File: file}}
			}
		} else if fault := refuseSize(find(dc, on), size(d), disks.size(dc, file)); fault != nil {
			return fault
		} else if fault := refuseProvisioning(find(dc, on), d); fault != nil {
			return fault
		}
	}
	return nil
}

// refuseSize knows that a disk of now bytes shall have wanted bytes.
func refuseSize(ds *simulator.Datastore, wanted, now int64) types.BaseMethodFault {
	if ds == nil || wanted == 0 || wanted == now {
		return nil
	}
	if ds.Summary.Type == "VVOL" && (wanted%mebibyte != 0 || wanted < mebibyte) {
		return &types.InvalidArgument{InvalidProperty: "capacity"}
	}
	if wanted-now > disks.free(ds) {
		return &types.NoDiskSpace{FileFault: types.FileFault{File: "[" + ds.Name + "]"}, Datastore: ds.Name}
	}
	return nil
}

func store(dc *types.ManagedObjectReference, file string) *simulator.Datastore {
	_, ds := local(dc, file)
	return ds
}

// locators: a machine that moves as a whole takes its disks along.
func locators(vm *simulator.VirtualMachine, spec types.VirtualMachineRelocateSpec) []types.VirtualMachineRelocateSpecDiskLocator {
	all := spec.Disk
	if spec.Datastore == nil || len(spec.Disk) > 0 || vm.Config == nil {
		return all
	}
	for _, device := range vm.Config.Hardware.Device {
		if d, ok := device.(*types.VirtualDisk); ok {
			all = append(all, types.VirtualMachineRelocateSpecDiskLocator{DiskId: d.Key, Datastore: *spec.Datastore})
		}
	}
	return all
}

func refuseRelocate(vm *simulator.VirtualMachine, spec types.VirtualMachineRelocateSpec) types.BaseMethodFault {
	for _, locator := range locators(vm, spec) {
		target, ok := simulator.Map.Get(locator.Datastore).(*simulator.Datastore)
		if d := deviceOf(vm, locator.DiskId); d != nil && ok {
			if !target.Summary.Accessible || target.Summary.MaintenanceMode == "inMaintenance" {
				return &types.InvalidDatastore{Datastore: &target.Self, Name: target.Name}
			}
			if fault := refuseSize(target, size(d), 0); fault != nil {
				return fault
			}
		}
	}
	return nil
}

// settle does after a call what the stock simulator leaves undone.
func settle(body types.AnyType) {
	switch req := body.(type) {
	case *types.CreateVirtualDisk_Task:
		if spec, ok := req.Spec.(types.BaseFileBackedVirtualDiskSpec); ok {
			disks.see(req.Datacenter, req.Name, spec.GetFileBackedVirtualDiskSpec().CapacityKb*1024)
		}
	case *types.ReconfigVM_Task:
		if vm, ok := simulator.Map.Get(req.This).(*simulator.VirtualMachine); ok {
			settleMachine(vm)
			changed(vm)
		}
	case *types.RelocateVM_Task:
		if vm, ok := simulator.Map.Get(req.This).(*simulator.VirtualMachine); ok {
			relocate(vm, req.Spec)
			settleMachine(vm)
			changed(vm)
		}
	case *types.CreateVM_Task, *types.ImportVApp:
		for _, entity := range simulator.Map.All("VirtualMachine") {
			settleMachine(entity.(*simulator.VirtualMachine))
		}
		versionMachines()
	case *types.ExtendVirtualDisk_Task, *types.DeleteVirtualDisk_Task, *types.MoveVirtualDisk_Task,
		*types.CopyVirtualDisk_Task, *types.Destroy_Task, *types.DeleteDatastoreFile_Task:
	default:
		return
	}
	disks.settle()
}

var versions int64

// changed gives the machine another changeVersion, which the stock simulator does not have. A call
// that names another one than the machine has is turned down with ConcurrentAccess.
func changed(vm *simulator.VirtualMachine) {
	simulator.Map.WithLock(vm, func() {
		simulator.Map.Update(vm, []types.PropertyChange{
			{Name: "config.changeVersion", Val: strconv.FormatInt(atomic.AddInt64(&versions, 1), 10)},
		})
	})
}

// versionMachines gives a changeVersion to those that have none yet.
func versionMachines() {
	for _, entity := range simulator.Map.All("VirtualMachine") {
		if vm := entity.(*simulator.VirtualMachine); vm.Config != nil && vm.Config.ChangeVersion == "" {
			changed(vm)
		}
	}
}

func settleMachine(vm *simulator.VirtualMachine) {
	if vm.Config == nil {
		return
	}
	dc := datacenterOf(vm.Self)
	simulator.Map.WithLock(vm, func() {
		for _, device := range vm.Config.Hardware.Device {
			if d, ok := device.(*types.VirtualDisk); ok {
				settleDisk(dc, d)
			}
			if c, ok := device.(types.BaseVirtualSCSIController); ok {
				c.GetVirtualSCSIController().ScsiCtlrUnitNumber = 7
			}
		}
		simulator.Map.Update(vm, []types.PropertyChange{
			{Name: "config.hardware.device", Val: vm.Config.Hardware.Device},
			{Name: "config.extraConfig", Val: options(vm.Config.ExtraConfig)},
		})
	})
}

// settleDisk: the size and the UUID are those of the file, unless a size was asked for.
func settleDisk(dc *types.ManagedObjectReference, d *types.VirtualDisk) {
	file, _ := backing(d)
	flat, ok := d.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
	known := disks.see(dc, file, size(d))
	if !ok || known == nil {
		return
	}
	if known.size == 0 && flat.Parent != nil { // a child has its parent's size
		known.size = disks.size(dc, flat.Parent.FileName)
	}
	d.CapacityInBytes, d.CapacityInKB = known.size, known.size/1024
	flat.Uuid = known.uuid
	if keepsObjects(known.store) {
		flat.BackingObjectId = "object-" + known.uuid
	}
}

// options: of each key the last value, and none that is empty. The stock simulator keeps all.
func options(all []types.BaseOptionValue) []types.BaseOptionValue {
	last := map[string]int{}
	for i, option := range all {
		last[option.GetOptionValue().Key] = i
	}
	var kept []types.BaseOptionValue
	for i, option := range all {
		if o := option.GetOptionValue(); last[o.Key] == i && o.Value != "" {
			kept = append(kept, option)
		}
	}
	return kept
}

func relocate(vm *simulator.VirtualMachine, spec types.VirtualMachineRelocateSpec) {
	for _, locator := range locators(vm, spec) {
		target, ok := simulator.Map.Get(locator.Datastore).(*simulator.Datastore)
		d := deviceOf(vm, locator.DiskId)
		if d == nil || !ok {
			continue
		}
		from, _ := backing(d)
		to := "[" + target.Name + "] " + path.Join(folderFor(vm, target), path.Base(split(from).Path))
		if from == to || disks.move(datacenterOf(vm.Self), from, to) != nil {
			continue
		}
		info := d.Backing.(types.BaseVirtualDeviceFileBackingInfo).GetVirtualDeviceFileBackingInfo()
		info.FileName, info.Datastore = to, &target.Self
	}
}

// folderFor is where a machine's disks go on a datastore.
func folderFor(vm *simulator.VirtualMachine, target *simulator.Datastore) string {
	home := split(vm.Config.Files.VmPathName)
	if !keepsObjects(target) {
		return vm.Name
	}
	if home.Datastore == target.Name {
		return path.Dir(home.Path)
	}
	if id, err := os.Readlink(path.Join(root(target), vm.Name)); err == nil {
		return id
	}
	id, _, _ := namespace(target, vm.Name)
	return id
}

// holder is a machine other than this one that has the disk.
func holder(dc *types.ManagedObjectReference, file string, except *simulator.VirtualMachine) *simulator.VirtualMachine {
	for _, entity := range simulator.Map.All("VirtualMachine") {
		vm := entity.(*simulator.VirtualMachine)
		in := datacenterOf(vm.Self)
		if vm == except || vm.Config == nil || in == nil || (dc != nil && *in != *dc) {
			continue
		}
		if diskOf(vm, file) != nil {
			return vm
		}
	}
	return nil
}

func diskOf(vm *simulator.VirtualMachine, file string) *types.VirtualDisk {
	dc := datacenterOf(vm.Self)
	wanted, _ := local(dc, file)
	for _, device := range vm.Config.Hardware.Device {
		if d, ok := device.(*types.VirtualDisk); ok {
			name, _ := backing(d)
			if at, ds := local(dc, name); ds != nil && at == wanted {
				return d
			}
		}
	}
	return nil
}

// isShared: several machines may write to the disk.
func isShared(d *types.VirtualDisk) bool {
	flat, ok := d.Backing.(*types.VirtualDiskFlatVer2BackingInfo)
	return ok && flat.Sharing == string(types.VirtualDiskSharingSharingMultiWriter)
}

func deviceOf(vm *simulator.VirtualMachine, key int32) *types.VirtualDisk {
	for _, device := range vm.Config.Hardware.Device {
		if d, ok := device.(*types.VirtualDisk); ok && d.Key == key {
			return d
		}
	}
	return nil
}

// backing is a disk's path and its datastore, by name or by reference.
func backing(d *types.VirtualDisk) (file, store string) {
	b, ok := d.Backing.(types.BaseVirtualDeviceFileBackingInfo)
	if !ok {
		return "", ""
	}
	info := b.GetVirtualDeviceFileBackingInfo()
	if info.Datastore != nil {
		if ds, ok := simulator.Map.Get(*info.Datastore).(*simulator.Datastore); ok {
			store = ds.Name
		}
	}
	if name := split(info.FileName).Datastore; name != "" {
		store = name
	}
	return strings.TrimSpace(info.FileName), store
}

func size(d *types.VirtualDisk) int64 {
	if d.CapacityInBytes > 0 {
		return d.CapacityInBytes
	}
	return d.CapacityInKB * 1024
}

func isOn(vm *simulator.VirtualMachine) bool {
	return vm.Runtime.PowerState == types.VirtualMachinePowerStatePoweredOn
}
