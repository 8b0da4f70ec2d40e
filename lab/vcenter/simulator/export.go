package main

import (
	"encoding/binary"
	"fmt"
	"net/http"
	"path"
	"strings"
	"sync"

	"github.com/google/uuid"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// export is the lease of a machine whose disks are read. Of a disk there is the header of a
// stream-optimized VMDK, which has the disk's capacity, and no more: disks have no contents here.
type export struct{ mo.HttpNfcLease }

var exported sync.Map // the capacities, by the path of the URL

func exportVM(w http.ResponseWriter, vm *simulator.VirtualMachine) {
	lease := &export{mo.HttpNfcLease{
		Self:  types.ManagedObjectReference{Type: "HttpNfcLease", Value: "export-" + uuid.New().String()},
		State: types.HttpNfcLeaseStateReady,
		Info:  &types.HttpNfcLeaseInfo{Entity: vm.Self, LeaseTimeout: 300},
	}}
	lease.Info.Lease = lease.Self
	for _, device := range vm.Config.Hardware.Device {
		if d, ok := device.(*types.VirtualDisk); ok {
			at := fmt.Sprintf("/nfc/%s/disk-%d.vmdk", lease.Self.Value, d.Key)
			exported.Store(at, size(d))
			lease.Info.DeviceUrl = append(lease.Info.DeviceUrl, types.HttpNfcLeaseDeviceUrl{
				Key: fmt.Sprint(d.Key), Url: "https://*" + at, Disk: types.NewBool(true)})
			lease.Info.TotalDiskCapacityInKB += size(d) / 1024
		}
	}
	simulator.Map.Put(lease)
	w.Header().Set("Content-Type", "text/xml; charset=utf-8")
	fmt.Fprintf(w, `<?xml version="1.0" encoding="UTF-8"?><soapenv:Envelope xmlns:soapenv="http://schemas.xmlsoap.org/soap/envelope/"><soapenv:Body><ExportVmResponse xmlns="urn:vim25"><returnval type="HttpNfcLease">%s</returnval></ExportVmResponse></soapenv:Body></soapenv:Envelope>`,
		lease.Self.Value)
}

// download answers a read of an exported disk; false: it is none.
func download(w http.ResponseWriter, req *http.Request) bool {
	capacity, ok := exported.Load(req.URL.Path)
	if !ok || req.Method != http.MethodGet {
		return false
	}
	header := make([]byte, 512)
	copy(header, "KDMV")
	binary.LittleEndian.PutUint32(header[4:], 3)
	binary.LittleEndian.PutUint32(header[8:], 3|1<<16)
	binary.LittleEndian.PutUint64(header[12:], uint64(capacity.(int64)/512))
	_, _ = w.Write(header)
	return true
}

// capacityOf is what the header of a VMDK tells; 0: it is none.
func capacityOf(header []byte) int64 {
	if len(header) < 20 || string(header[:4]) != "KDMV" {
		return 0
	}
	return int64(binary.LittleEndian.Uint64(header[12:])) * 512
}

// beginning keeps as much of a transfer as capacityOf reads.
type beginning struct{ data []byte }

func (b *beginning) Write(p []byte) (int, error) {
	if missing := 20 - len(b.data); missing > 0 {
		b.data = append(b.data, p[:min(missing, len(p))]...)
	}
	return len(p), nil
}

func min(a, b int) int {
	if a < b {
		return a
	}
	return b
}

// uploaded: a disk that was filled has the capacity of what was sent, whatever was asked for.
func uploaded(name string, capacity int64) {
	for _, entity := range simulator.Map.All("VirtualMachine") {
		vm := entity.(*simulator.VirtualMachine)
		if vm.Config == nil {
			continue
		}
		for _, device := range vm.Config.Hardware.Device {
			d, ok := device.(*types.VirtualDisk)
			if !ok {
				continue
			}
			if file, _ := backing(d); path.Base(split(file).Path) == name {
				d.CapacityInBytes = capacity
				settleMachine(vm)
				return
			}
		}
	}
}

func (l *export) done() {
	exported.Range(func(at, _ interface{}) bool {
		if strings.Contains(at.(string), l.Self.Value) {
			exported.Delete(at)
		}
		return true
	})
	simulator.Map.Remove(l.Self)
}

func (l *export) HttpNfcLeaseComplete(req *types.HttpNfcLeaseComplete) soap.HasFault {
	l.done()
	return &methods.HttpNfcLeaseCompleteBody{Res: &types.HttpNfcLeaseCompleteResponse{}}
}

func (l *export) HttpNfcLeaseAbort(req *types.HttpNfcLeaseAbort) soap.HasFault {
	l.done()
	return &methods.HttpNfcLeaseAbortBody{Res: &types.HttpNfcLeaseAbortResponse{}}
}

func (l *export) HttpNfcLeaseProgress(req *types.HttpNfcLeaseProgress) soap.HasFault {
	return &methods.HttpNfcLeaseProgressBody{Res: &types.HttpNfcLeaseProgressResponse{}}
}
