package main

import (
	"encoding/json"
	"net/http"
	"reflect"
	"strings"
	"sync"
	"time"

	"github.com/vmware/govmomi/simulator"
	"github.com/vmware/govmomi/vim25/types"
)

// A rule says what shall go wrong with a call; Method "*": any; Count 0: for ever.
type rule struct {
	Method    string // its name on the wire, such as ReconfigVM_Task
	Match     string // only calls that contain this text
	Skip      int    // calls to let pass first
	Count     int
	Fault     string // answered instead of the call
	TaskFault string // the task ends so, though the call was carried out
	TaskMs    int    // the task looks as if it still ran
	DelayMs   int    // before the call
	ReplyMs   int    // after the call, before its answer
	Status    int    // answered instead of the call: an HTTP status
	Drop      bool   // the connection is cut instead of the call
	DropAfter bool   // and after it
	Idle      bool   // the task ends well, and nothing was done
	LeaseHost string // host and port that a lease which is read here names for uploads
}

var control struct {
	sync.Mutex
	rules   []*rule
	calls   map[string]int
	uploads map[string]upload
}

type upload struct {
	Bytes  int64
	Sha256 string
}

// take counts a call, and finds the rule that strikes it.
func take(method string, body string) rule {
	control.Lock()
	defer control.Unlock()
	if control.calls == nil {
		control.calls = map[string]int{}
	}
	control.calls[method]++
	for i, r := range control.rules {
		if (r.Method != "*" && r.Method != method) || !strings.Contains(body, r.Match) {
			continue
		}
		if r.Skip > 0 {
			r.Skip--
			continue
		}
		if r.Count == 1 {
			control.rules = append(control.rules[:i:i], control.rules[i+1:]...)
		} else if r.Count > 1 {
			r.Count--
		}
		return *r
	}
	return rule{}
}

// serveControl: GET tells what was called and uploaded; POST adds rules; PUT changes a datastore;
// DELETE forgets the rules and the counts.
func serveControl(w http.ResponseWriter, req *http.Request) {
	var err error
	switch req.Method {
	case http.MethodPost:
		var rules []*rule
		if err = json.NewDecoder(req.Body).Decode(&rules); err == nil {
			control.Lock()
			control.rules = append(control.rules, rules...)
			control.Unlock()
		}
	case http.MethodPut:
		var s spec
		if err = json.NewDecoder(req.Body).Decode(&s); err == nil {
			if ds := find(nil, s.Name); ds != nil {
				apply(ds, s)
			} else if !readable(s) {
				err = fail("no datastore %s", s.Name)
			}
		}
	case http.MethodDelete:
		control.Lock()
		control.rules, control.calls, control.uploads = nil, nil, nil
		control.Unlock()
	}
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	control.Lock()
	defer control.Unlock()
	_ = json.NewEncoder(w).Encode(map[string]interface{}{
		"calls": control.calls, "uploads": control.uploads, "disks": listing()})
}

func listing() map[string]int64 {
	disks.Lock()
	defer disks.Unlock()
	sizes := map[string]int64{}
	for file, d := range disks.byPath {
		place := strings.TrimPrefix(strings.TrimPrefix(file, root(d.store)), "/")
		label := "[" + d.store.Name + "] " + place
		if _, taken := sizes[label]; taken {
			label = datacenterOf(d.store.Self).Value + ":" + label
		}
		sizes[label] = d.size
	}
	return sizes
}

// hold shows a finished task as running for a while, then ends it as it ended, or with a fault.
func hold(id string, r rule) {
	ref := types.ManagedObjectReference{Type: "Task", Value: id}
	task, ok := simulator.Map.Get(ref).(*simulator.Task)
	if !ok || (r.TaskMs == 0 && r.TaskFault == "") {
		return
	}
	state, result, fault, done := task.Info.State, task.Info.Result, task.Info.Error, task.Info.CompleteTime
	if r.TaskFault != "" {
		state, result = types.TaskInfoStateError, nil
		fault = &types.LocalizedMethodFault{
			Fault: newFault(r.TaskFault), LocalizedMessage: "injected " + r.TaskFault}
	}
	show(task, types.TaskInfoStateRunning, 50, nil, nil, nil)
	end := func() { show(task, state, 100, done, result, fault) }
	if r.TaskMs == 0 {
		end()
		return
	}
	time.AfterFunc(time.Duration(r.TaskMs)*time.Millisecond, end)
}

func show(task *simulator.Task, state types.TaskInfoState, progress int32, done *time.Time,
	result types.AnyType, fault *types.LocalizedMethodFault) {
	simulator.Map.WithLock(task, func() {
		task.Info.CompleteTime, task.Info.Error = done, fault
		changes := []types.PropertyChange{
			{Name: "info.progress", Val: progress},
			{Name: "info.state", Val: state},
			{Name: "info.result", Val: result},
		}
		if fault != nil {
			changes = append(changes, types.PropertyChange{Name: "info.error", Val: *fault})
		}
		simulator.Map.Update(task, changes)
	})
}

func newFault(name string) types.BaseMethodFault {
	if t, ok := types.TypeFunc()(name); ok {
		if fault, ok := reflect.New(t).Interface().(types.BaseMethodFault); ok {
			return fault
		}
	}
	return &types.SystemError{}
}
