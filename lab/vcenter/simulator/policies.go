package main

import (
	"github.com/vmware/govmomi/pbm/methods"
	pbmsim "github.com/vmware/govmomi/pbm/simulator"
	pbm "github.com/vmware/govmomi/pbm/types"
	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// The datastore type that meets a storage policy; the ids are the stock simulator's.
var policyTypes = map[string]string{
	"f4e5bade-15a2-4805-bf8e-52318c4ce443": "VVOL", // VVol No Requirements Policy
	"aa6d5a82-1c88-45da-85d3-3d74b91a5bad": "vsan", // vSAN Default Storage Policy
}

// solver adds the two placement calls that the stock simulator lacks. Like vCenter's it also names
// datastores that are in maintenance or cannot be reached.
type solver struct{ pbmsim.PlacementSolver }

func addPolicies(s *simulator.Service) {
	registry := pbmsim.New()
	s.RegisterSDK(registry)
	ref := types.ManagedObjectReference{Type: "PbmPlacementSolver", Value: "placementSolver"}
	registry.Put(&solver{*registry.Get(ref).(*pbmsim.PlacementSolver)})
}

func match(hubs []pbm.PbmPlacementHub, id string) (good, bad []pbm.PbmPlacementHub) {
	for _, entity := range simulator.Map.All("Datastore") {
		ds := entity.(*simulator.Datastore)
		hub := pbm.PbmPlacementHub{HubType: "Datastore", HubId: ds.Self.Value}
		asked := len(hubs) == 0
		for _, each := range hubs {
			asked = asked || each == hub
		}
		if wanted, known := policyTypes[id]; !asked {
			continue
		} else if !known || wanted == ds.Summary.Type {
			good = append(good, hub)
		} else {
			bad = append(bad, hub)
		}
	}
	return good, bad
}

func (*solver) PbmQueryMatchingHub(req *pbm.PbmQueryMatchingHub) soap.HasFault {
	good, _ := match(req.HubsToSearch, req.Profile.UniqueId)
	return &methods.PbmQueryMatchingHubBody{Res: &pbm.PbmQueryMatchingHubResponse{Returnval: good}}
}

func (*solver) PbmCheckCompatibility(req *pbm.PbmCheckCompatibility) soap.HasFault {
	good, bad := match(req.HubsToSearch, req.Profile.UniqueId)
	res := &pbm.PbmCheckCompatibilityResponse{}
	for _, hub := range good {
		res.Returnval = append(res.Returnval, pbm.PbmPlacementCompatibilityResult{Hub: hub})
	}
	for _, hub := range bad {
		fault := types.LocalizedMethodFault{
			Fault:            &pbm.PbmCompatibilityCheckFault{Hub: hub},
			LocalizedMessage: "the datastore does not meet the policy"}
		res.Returnval = append(res.Returnval, pbm.PbmPlacementCompatibilityResult{
			Hub: hub, Error: []types.LocalizedMethodFault{fault}})
	}
	return &methods.PbmCheckCompatibilityBody{Res: res}
}
