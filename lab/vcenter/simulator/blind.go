package main

import (
	"sync"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// Machines whose configuration vCenter cannot read: inaccessible ones, or such as are just being made.
var blind = struct {
	sync.Mutex
	configs map[types.ManagedObjectReference]*types.VirtualMachineConfigInfo
}{configs: map[types.ManagedObjectReference]*types.VirtualMachineConfigInfo{}}

// readable takes a machine's configuration away, or gives it back; false: there is no such machine.
// What vCenter remembers of it, its summary and its datastores, stays unless it is new.
func readable(s spec) bool {
	for _, entity := range simulator.Map.All("VirtualMachine") {
		vm := entity.(*simulator.VirtualMachine)
		if vm.Name != s.Name || s.Config == "" {
			continue
		}
		blind.Lock()
		defer blind.Unlock()
		simulator.Map.WithLock(vm, func() {
			if kept := blind.configs[vm.Self]; kept != nil {
				vm.Config = kept
				delete(blind.configs, vm.Self)
				vm.Summary.Config.InstanceUuid = kept.InstanceUuid
				vm.Runtime.ConnectionState = types.VirtualMachineConnectionStateConnected
			}
			if s.Config == "readable" {
				return
			}
			blind.configs[vm.Self], vm.Config = vm.Config, nil
			if s.Config == "inaccessible" {
				vm.Runtime.ConnectionState = types.VirtualMachineConnectionStateInaccessible
			} else { // it is being made
				vm.Summary.Config.InstanceUuid = ""
			}
		})
		return true
	}
	return false
}

// index is the stock one, which falls over machines without a configuration.
type index struct{ simulator.SearchIndex }

func addSearchIndex() {
	stock := simulator.Map.SearchIndex()
	simulator.Map.Put(&index{*stock})
}

func (i *index) FindByUuid(ctx *simulator.Context, req *types.FindByUuid) soap.HasFault {
	if !req.VmSearch || req.InstanceUuid == nil || !*req.InstanceUuid {
		return i.SearchIndex.FindByUuid(req)
	}
	body := &methods.FindByUuidBody{Res: &types.FindByUuidResponse{}}
	for _, entity := range simulator.Map.All("VirtualMachine") {
		vm := entity.(*simulator.VirtualMachine)
		if vm.Config != nil && vm.Config.InstanceUuid == req.Uuid {
			body.Res.Returnval = &vm.Self
		}
	}
	return body
}
