package manifest

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/mutant"
)

// Manifest is one state of a pipeline's folder. It is never changed after it was
// made; the maps of the next state are copies.
type Manifest struct {
	Number   uint64                               `json:"number"` // +1 per published state; 0: nothing published yet
	Pipeline messages.PipelineID                  `json:"pipeline"`
	Epoch    messages.Epoch                       `json:"epoch"` // of the owner; who presents another one is fenced
	Store    string                               `json:"store"` // identity of the owner's state store
	Loads    map[string]Load                      `json:"loads,omitempty"`
	Parts    map[messages.PartID]connectors.Part  `json:"parts,omitempty"`
	Receipts map[messages.PartID]messages.Receipt `json:"receipts,omitempty"`
	Targets  map[string]Target                    `json:"targets,omitempty"`
	Dead     []File                               `json:"dead_letters,omitempty"`

	// parts is Parts, encoded. Only Begin changes them, every commit writes them.
	parts []byte
}

// Load is the newest load of one name.
type Load struct {
	Number   uint64                       `json:"number"`
	Mode     connectors.WriteMode         `json:"mode"`
	Finished bool                         `json:"finished,omitempty"`
	Identity string                       `json:"identity,omitempty"`
	Run      string                       `json:"run,omitempty"`
	Shape    string                       `json:"shape,omitempty"`
	History  json.RawMessage              `json:"history,omitempty"`
	Streams  map[messages.StreamID]Stream `json:"streams"`
	Staged   map[string][]File            `json:"staged,omitempty"` // of a replace, by target
}

// Stream is where one stream of a load goes.
type Stream struct {
	Target  string   `json:"target"`
	Columns []Column `json:"columns"` // as begun, widened by later schema changes
}

// Target is what readers of one target may trust.
type Target struct {
	Columns []Column `json:"columns"` // of all listed files together
	Files   []File   `json:"files,omitempty"`
}

// Column is a name with the text of its Arrow type.
type Column struct {
	Name string `json:"name"`
	Type string `json:"type"`
}

// File is one data file in the folder of its target.
type File struct {
	Name   string          `json:"name"`
	Rows   int64           `json:"rows"`
	Bytes  int64           `json:"bytes"`
	SHA256 string          `json:"sha256"` // of the file's bytes, in hex
	Schema string          `json:"schema"` // short hash of its columns
	Part   messages.PartID `json:"part"`
}

// Placed is a file together with its target.
type Placed struct {
	Target string
	File   File
}

// Commit is what one commit adds.
type Commit struct {
	From    messages.Receipt // the receipt as the writer knows it
	Next    messages.Receipt
	Files   []Placed
	Columns map[messages.StreamID][]Column // of streams whose schema changed since Begin
	Dead    []File
}

// Empty returns the state of a folder that no pipeline of this name has used.
func Empty(p messages.PipelineID) *Manifest { return &Manifest{Pipeline: p} }

// Recovered returns what a new owner needs to know, in a stable order.
func (m *Manifest) Recovered() connectors.Recovered {
	var r connectors.Recovered
	for _, name := range slices.Sorted(maps.Keys(m.Loads)) {
		l := m.Loads[name]
		r.Loads = append(r.Loads, connectors.LoadStatus{
			ID: messages.LoadID{Name: name, Number: l.Number}, Mode: l.Mode, Finished: l.Finished,
			Identity: l.Identity, Run: l.Run, Shape: l.Shape, History: l.History,
		})
	}
	for _, id := range slices.Sorted(maps.Keys(m.Parts)) {
		r.Parts = append(r.Parts, m.Parts[id])
	}
	for _, id := range slices.Sorted(maps.Keys(m.Receipts)) {
		r.Receipts = append(r.Receipts, m.Receipts[id])
	}
	return r
}

// Names reports which files of target the state refers to, listed or staged.
func (m *Manifest) Names(target string) map[string]bool {
	names := make(map[string]bool)
	for _, f := range m.Targets[target].Files {
		names[f.Name] = true
	}
	for _, l := range m.Loads {
		for _, f := range l.Staged[target] {
			names[f.Name] = true
		}
	}
	return names
}

// Missing returns the files of target that the state refers to, listed or staged, and that
// are not among those that are there.
func (m *Manifest) Missing(target string, there map[string]bool) []File {
	var out []File
	find := func(files []File) {
		for _, f := range files {
			if !there[f.Name] {
				out = append(out, f)
			}
		}
	}
	find(m.Targets[target].Files)
	for _, name := range slices.Sorted(maps.Keys(m.Loads)) {
		find(m.Loads[name].Staged[target])
	}
	return out
}

// Without returns m with a target that does not list files any more, to be changed
// further before it is published.
func (m *Manifest) Without(target string, files []File) *Manifest {
	n := m.clone()
	n.Number = m.Number
	t := n.Targets[target]
	t.Files = slices.DeleteFunc(slices.Clone(t.Files), func(f File) bool { return slices.Contains(files, f) })
	n.Targets[target] = t
	return n
}

// Lists reports whether the state refers to a file of target, or to a dead letter
// file of that name.
func (m *Manifest) Lists(target, name string) bool {
	return m.Names(target)[name] || slices.ContainsFunc(m.Dead, func(f File) bool { return f.Name == name })
}

// TakeOver makes the owner of r.Epoch the owner of the folder. An equal epoch that
// does not join was drawn twice and is refused. It returns m itself when nothing changes.
func (m *Manifest) TakeOver(r connectors.SessionRequest) (*Manifest, error) {
	if (m.Epoch > r.Epoch || m.Epoch == r.Epoch && !r.Join) && !mutant.On(mutant.EpochOfStore) {
		return nil, &connectors.FencedError{Registered: messages.Token{Epoch: m.Epoch}}
	}
	if m.Number > 0 && m.Store != r.Store && !r.Adopt {
		return nil, &connectors.Error{
			Op: "open the folder", Kind: connectors.KindConfig, Commit: connectors.CommitNone, Code: messages.CodeDestForeign,
			Err: fmt.Errorf("pipeline %s was run into it by the state store %q, this one is %q", m.Pipeline, m.Store, r.Store),
		}
	}
	if m.Number > 0 && m.Epoch == r.Epoch && m.Store == r.Store {
		return m, nil
	}
	n := m.clone()
	n.Epoch, n.Store = r.Epoch, r.Store
	return n, nil
}

// Begin makes l the current load of its name. It returns m itself when l is begun
// already, and otherwise also the staged files that no state refers to any more.
func (m *Manifest) Begin(epoch messages.Epoch, l connectors.Load) (*Manifest, []Placed, error) {
	if err := m.fence(epoch); err != nil {
		return nil, nil, err
	}
	old, known := m.Loads[l.ID.Name]
	if known && old.Number == l.ID.Number {
		return m, nil, nil
	}
	if known && old.Number > l.ID.Number {
		return nil, nil, internal("begin", fmt.Errorf("load %s/%d is older than load %d, which is begun", l.ID.Name, l.ID.Number, old.Number))
	}
	n := m.clone()
	n.parts = nil
	dropped := n.forget(l.ID.Name)
	load := Load{
		Number: l.ID.Number, Mode: l.Mode, Identity: l.Identity, Run: l.Run, Shape: l.Shape, History: l.History,
		Streams: make(map[messages.StreamID]Stream, len(l.Streams)),
	}
	for _, s := range l.Streams {
		cols := Columns(s.Schema)
		load.Streams[s.Stream] = Stream{Target: s.Target, Columns: cols}
		if err := n.widen(s, l.Mode, cols); err != nil {
			return nil, nil, err
		}
	}
	n.Loads[l.ID.Name] = load
	for _, p := range l.Parts {
		n.Parts[p.ID] = p
		n.Receipts[p.ID] = messages.Receipt{
			Part: p.ID, Load: l.ID.Name, Version: messages.Version{Load: l.ID.Number}, Token: messages.Token{Epoch: epoch},
		}
	}
	return n, dropped, nil
}

// OpenWriter registers the token t for part p and returns the receipt. It returns
// m itself when t is registered already.
func (m *Manifest) OpenWriter(epoch messages.Epoch, p connectors.Part, t messages.Token) (*Manifest, messages.Receipt, error) {
	if err := m.fence(epoch); err != nil {
		return nil, messages.Receipt{}, err
	}
	r, ok := m.Receipts[p.ID]
	if ok && r.Load == p.Load.Name && r.Version.Load > p.Load.Number {
		return nil, r, &connectors.FencedError{Registered: r.Token}
	}
	if !ok || r.LoadID() != p.Load {
		return nil, r, internal("open a writer", fmt.Errorf("part %s of load %s/%d is not begun", p.ID, p.Load.Name, p.Load.Number))
	}
	switch r.Token.Compare(t) {
	case 0:
		return m, r, nil
	case 1:
		return nil, r, &connectors.FencedError{Registered: r.Token}
	}
	r.Token = t
	n := m.clone()
	n.Receipts[p.ID] = r
	return n, r, nil
}

// Commit adds files and the receipt that covers them, after checking epoch,
// attempt and commit number.
func (m *Manifest) Commit(epoch messages.Epoch, c Commit) (*Manifest, error) {
	if err := m.fence(epoch); err != nil {
		return nil, err
	}
	id := c.From.Part
	if l := m.Loads[c.From.Load]; l.Number > c.From.Version.Load { // the load was begun again
		return nil, &connectors.FencedError{Registered: messages.Token{Epoch: m.Epoch}}
	}
	r, ok := m.Receipts[id]
	if !ok || r.LoadID() != c.From.LoadID() {
		return nil, internal("commit", fmt.Errorf("part %s of load %s/%d is not begun", id, c.From.Load, c.From.Version.Load))
	}
	if r.Token != c.From.Token {
		return nil, &connectors.FencedError{Registered: r.Token}
	}
	if r.Version == c.Next.Version { // by us: it was published, and nobody could tell
		return nil, &connectors.Error{
			Op: "commit", Kind: connectors.KindTransient, Commit: connectors.CommitUnknown, Code: messages.CodeDest,
			Err: fmt.Errorf("part %s is at commit %d already", id, r.Version.Commit),
		}
	}
	if r.Version != c.From.Version || r.Final {
		return nil, internal("commit", fmt.Errorf("part %s is at commit %d (final: %t), the writer at %d", id, r.Version.Commit, r.Final, c.From.Version.Commit))
	}
	n := m.clone()
	n.Receipts[id] = c.Next
	load := n.Loads[c.From.Load]
	for stream, cols := range c.Columns {
		s := load.Streams[stream]
		load.Streams = maps.Clone(load.Streams)
		load.Streams[stream] = Stream{Target: s.Target, Columns: union(s.Columns, cols)}
		if load.Mode == connectors.ModeReplace {
			continue
		}
		t := n.Targets[s.Target]
		t.Columns = union(t.Columns, cols)
		n.Targets[s.Target] = t
	}
	if load.Mode == connectors.ModeReplace && len(c.Files) > 0 {
		load.Staged = maps.Clone(load.Staged)
		if load.Staged == nil {
			load.Staged = make(map[string][]File)
		}
	}
	for _, f := range c.Files {
		if load.Mode == connectors.ModeReplace {
			load.Staged[f.Target] = slices.Concat(load.Staged[f.Target], []File{f.File})
			continue
		}
		t := n.Targets[f.Target]
		t.Files = slices.Concat(t.Files, []File{f.File})
		n.Targets[f.Target] = t
	}
	n.Loads[c.From.Load] = load
	n.Dead = slices.Concat(m.Dead, c.Dead)
	return n, nil
}

// Finish marks a complete load finished; the targets of a replace list its files
// from then on and no others. It returns m itself when the load is finished, and
// otherwise also the files that are listed no longer.
func (m *Manifest) Finish(epoch messages.Epoch, id messages.LoadID) (*Manifest, []Placed, error) {
	if err := m.fence(epoch); err != nil {
		return nil, nil, err
	}
	load, ok := m.Loads[id.Name]
	if !ok || load.Number != id.Number {
		return nil, nil, internal("finish", fmt.Errorf("load %s/%d is not begun", id.Name, id.Number))
	}
	if load.Finished {
		return m, nil, nil
	}
	for part, r := range m.Receipts {
		if r.LoadID() == id && !r.Final {
			return nil, nil, internal("finish", fmt.Errorf("part %s of load %s/%d is not complete", part, id.Name, id.Number))
		}
	}
	n := m.clone()
	var dropped []Placed
	if load.Mode == connectors.ModeReplace {
		for _, s := range load.Streams {
			for _, f := range n.Targets[s.Target].Files {
				dropped = append(dropped, Placed{Target: s.Target, File: f})
			}
			n.Targets[s.Target] = Target{Columns: s.Columns, Files: load.Staged[s.Target]}
		}
	}
	load.Staged, load.Finished = nil, true
	n.Loads[id.Name] = load
	return n, dropped, nil
}

// fence answers an owner that is not the registered one.
func (m *Manifest) fence(epoch messages.Epoch) error {
	switch {
	case mutant.On(mutant.NoEpoch):
		return nil
	case m.Epoch > epoch:
		return &connectors.FencedError{Registered: messages.Token{Epoch: m.Epoch}}
	case m.Epoch < epoch:
		return &connectors.Error{
			Op: "check the owner", Kind: connectors.KindConfig, Commit: connectors.CommitNone, Code: messages.CodeDestDamaged,
			Err: fmt.Errorf("the manifest went back to epoch %d while epoch %d owns it", m.Epoch, epoch),
		}
	}
	return nil
}

// forget removes the load of this name with its parts and receipts and returns
// the files it had staged.
func (m *Manifest) forget(name string) []Placed {
	var dropped []Placed
	for target, files := range m.Loads[name].Staged {
		for _, f := range files {
			dropped = append(dropped, Placed{Target: target, File: f})
		}
	}
	for id, r := range m.Receipts {
		if r.Load == name {
			delete(m.Receipts, id)
			delete(m.Parts, id)
		}
	}
	delete(m.Loads, name)
	return dropped
}

// widen checks the columns of s against its target and adds what is new. A
// replace brings its own columns and is not checked.
func (m *Manifest) widen(s connectors.StreamPlan, mode connectors.WriteMode, cols []Column) error {
	t := m.Targets[s.Target]
	if mode == connectors.ModeReplace {
		m.Targets[s.Target] = t // the folder is known, so that orphans in it are found
		return nil
	}
	if err := CheckTypes(s, t.Columns, cols); err != nil {
		return err
	}
	t.Columns = union(t.Columns, cols)
	m.Targets[s.Target] = t
	return nil
}

// clone returns the next state, equal to m but for its number.
func (m *Manifest) clone() *Manifest {
	n := *m
	n.Number++
	n.Loads = copyMap(m.Loads)
	n.Parts = copyMap(m.Parts)
	n.Receipts = copyMap(m.Receipts)
	n.Targets = copyMap(m.Targets)
	return &n
}

func copyMap[K comparable, V any](m map[K]V) map[K]V {
	if m == nil {
		return make(map[K]V)
	}
	return maps.Clone(m)
}

func internal(op string, err error) error {
	return &connectors.Error{Op: op, Kind: connectors.KindInternal, Commit: connectors.CommitNone, Code: messages.CodeInternal, Err: err}
}
