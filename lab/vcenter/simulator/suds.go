package main

import (
	"net/http"
	"path"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/methods"
	"github.com/vmware/govmomi/vim25/mo"
	"github.com/vmware/govmomi/vim25/soap"
	"github.com/vmware/govmomi/vim25/types"
)

// What clients on suds (oslo.vmware, so Nova and Cinder) send, and the stock simulator does not take
// though vCenter does. suds puts a prefix to every name, and xsi:type="ns0:VirtualDisk" too.

var (
	// The stock property collector does not heed a traversal's type: this one goes round for ever.
	loop = regexp.MustCompile(`(<(?:\w+:)?name>rp_to_vm</(?:\w+:)?name>\s*<(?:\w+:)?type>\w+</(?:\w+:)?type>\s*` +
		`<(?:\w+:)?path>\w+</(?:\w+:)?path>\s*<(?:\w+:)?skip>\w+</(?:\w+:)?skip>)` +
		`(?:\s*<(?:\w+:)?selectSet[^>]*>\s*<(?:\w+:)?name>\w+</(?:\w+:)?name>\s*</(?:\w+:)?selectSet>)+`)
	zoneless  = regexp.MustCompile(`(lastHeartbeatTime>[-\dT:.]+)(</)`)
	noSpec    = regexp.MustCompile(`<((?:\w+:)?)datastorePath>[^<]*</(?:\w+:)?datastorePath>`)
	keyedPath = regexp.MustCompile(`<((?:\w+:)?)pathSet>config\.extraConfig\[(?:"|&quot;|&#34;)([^<]*?)(?:"|&quot;|&#34;)\]</(?:\w+:)?pathSet>`)
	allKeys   = regexp.MustCompile(`(?s)<propSet><name>config\.extraConfig</name><val[^>]*>(.*?)</val></propSet>`)
	option    = regexp.MustCompile(`(?s)<OptionValue[^>]*><key>([^<]*)</key>(<value[^>]*>[^<]*</value>)</OptionValue>`)
)

// adapt makes of a request one that the stock simulator takes; keys: of the extra configuration
// that were asked for one by one.
func adapt(method string, body []byte) (adapted []byte, keys []string) {
	switch method {
	case "RetrievePropertiesEx", "RetrieveProperties":
		body = loop.ReplaceAll(body, []byte("$1"))
		return keyedPath.ReplaceAllFunc(body, func(found []byte) []byte {
			m := keyedPath.FindSubmatch(found)
			keys = append(keys, string(m[2]))
			if len(keys) > 1 {
				return nil
			}
			prefix := string(m[1])
			return []byte("<" + prefix + "pathSet>config.extraConfig</" + prefix + "pathSet>")
		}), keys
	case "RegisterExtension":
		body = zoneless.ReplaceAll(body, []byte("${1}Z$2"))
	case "SearchDatastore_Task":
		if !strings.Contains(string(body), "searchSpec") {
			body = noSpec.ReplaceAll(body, []byte("$0<${1}searchSpec><${1}matchPattern>*</${1}matchPattern></${1}searchSpec>"))
		}
	}
	return body, nil
}

// keyed answers with the single values that were asked for.
func keyed(reply []byte, keys []string) []byte {
	if len(keys) == 0 {
		return reply
	}
	return allKeys.ReplaceAllFunc(reply, func(all []byte) []byte {
		var told []byte
		for _, o := range option.FindAllSubmatch(all, -1) {
			for _, key := range keys {
				if string(o[1]) == key {
					told = append(told, `<propSet><name>config.extraConfig["`+key+
						`"]</name><val xmlns:XMLSchema-instance="http://www.w3.org/2001/XMLSchema-instance" XMLSchema-instance:type="OptionValue"><key>`+
						key+`</key>`+string(o[2])+`</val></propSet>`...)
				}
			}
		}
		return told
	})
}

// typeNamed finds a type with and without a prefix.
func typeNamed(name string) (reflect.Type, bool) {
	find := types.TypeFunc()
	if t, ok := find(name); ok {
		return t, ok
	}
	return find(name[strings.LastIndex(name, ":")+1:])
}

// serveWSDL: the description of the API, if there is one (lab/vcenter/wsdl.py makes it).
func serveWSDL(w http.ResponseWriter, req *http.Request) {
	if *wsdl == "" {
		http.NotFound(w, req)
		return
	}
	http.ServeFile(w, req, filepath.Join(*wsdl, path.Base(req.URL.Path)))
}

func (i *index) FindAllByUuid(ctx *simulator.Context, req *types.FindAllByUuid) soap.HasFault {
	body := &methods.FindAllByUuidBody{Res: &types.FindAllByUuidResponse{}}
	for _, entity := range simulator.Map.All("VirtualMachine") {
		vm := entity.(*simulator.VirtualMachine)
		if vm.Config == nil || !req.VmSearch {
			continue
		}
		id := vm.Config.Uuid
		if req.InstanceUuid != nil && *req.InstanceUuid {
			id = vm.Config.InstanceUuid
		}
		if id == req.Uuid {
			body.Res.Returnval = append(body.Res.Returnval, vm.Self)
		}
	}
	return body
}

// extensions keeps what clients say of themselves.
type extensions struct{ mo.ExtensionManager }

func addExtensions() {
	simulator.Map.Put(&extensions{mo.ExtensionManager{Self: types.ManagedObjectReference{
		Type: "ExtensionManager", Value: "ExtensionManager"}}})
}

func (m *extensions) FindExtension(req *types.FindExtension) soap.HasFault {
	body := &methods.FindExtensionBody{Res: &types.FindExtensionResponse{}}
	for n, each := range m.ExtensionList {
		if each.Key == req.ExtensionKey {
			body.Res.Returnval = &m.ExtensionList[n]
		}
	}
	return body
}

func (m *extensions) RegisterExtension(req *types.RegisterExtension) soap.HasFault {
	body := &methods.RegisterExtensionBody{}
	for _, each := range m.ExtensionList {
		if each.Key == req.Extension.Key {
			body.Fault_ = simulator.Fault("", &types.InvalidArgument{InvalidProperty: "extension.key"})
			return body
		}
	}
	m.ExtensionList = append(m.ExtensionList, req.Extension)
	body.Res = &types.RegisterExtensionResponse{}
	return body
}
