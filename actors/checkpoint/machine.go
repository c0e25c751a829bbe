package checkpoint

import (
	"maps"
	"slices"

	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/mutant"
)

// Machine is the protocol of one pipeline under one epoch, and nothing but the
// protocol: no clock, no I/O, no goroutine. Not safe for concurrent use.
type Machine struct {
	pipeline messages.PipelineID
	epoch    messages.Epoch
	state    state
	parts    map[messages.PartID]*part    // of the current load of each name
	members  map[string][]messages.PartID // of parts, by the name of the load
	loads    map[string]*load
	unsure   map[messages.PartID]bool // parts that may have more than is saved; of the others nobody has to be looked at
	marks    map[string]bool          // names of loads whose mark may not be saved
	saveID   uint64
	saving   *Save                  // in flight; nil: none
	covers   map[messages.PartID]at // what the save in flight covers, per running task
}

type state uint8

const (
	stateRecovering state = iota
	stateRunning
	stateStopped
)

type part struct {
	durable messages.Receipt // D: the highest receipt seen
	saved   messages.Receipt // K: never above durable
	running at               // the task whose acks count, and the barrier durable covers
}

// at is a place in one attempt.
type at struct {
	token messages.Token // zero: no task yet
	seq   messages.Seq   // 0: before its first barrier
}

type load struct {
	id            messages.LoadID
	finished      bool // at the destination
	savedFinished bool // in the state store too
}

// NewMachine returns a machine that waits for Recovered.
func NewMachine(p messages.PipelineID, e messages.Epoch) *Machine {
	return &Machine{
		pipeline: p, epoch: e,
		parts: map[messages.PartID]*part{}, loads: map[string]*load{}, members: map[string][]messages.PartID{},
		unsure: map[messages.PartID]bool{}, marks: map[string]bool{},
	}
}

// Step applies ev and returns what must be done about it, in order.
func (m *Machine) Step(ev Event) []Effect {
	if m.state == stateStopped {
		return nil
	}
	if _, first := ev.(Recovered); first != (m.state == stateRecovering) {
		panic("checkpoint: Recovered is the first event, and only the first")
	}
	switch ev := ev.(type) {
	case Recovered:
		return m.onRecovered(ev)
	case Began:
		return m.onBegan(ev)
	case Started:
		return m.onStarted(ev)
	case Acked:
		return m.onAcked(ev)
	case Saved:
		return m.onSaved(ev)
	case SaveFailed:
		return m.onSaveFailed(ev)
	case Finished:
		return m.onFinished(ev)
	case Tick:
		return m.onTick()
	}
	return nil
}

func (m *Machine) onRecovered(ev Recovered) []Effect {
	m.state = stateRunning
	for _, id := range ev.Begun {
		m.loads[id.Name] = &load{id: id}
	}
	for _, d := range ev.Durable {
		m.add(d)
		if l := m.loads[d.Load]; l == nil || l.id.Number < d.Version.Load {
			m.loads[d.Load] = &load{id: d.LoadID()}
		}
	}
	for _, id := range ev.Finished {
		if l := m.loads[id.Name]; l != nil && l.id == id {
			l.finished = true
			m.marks[id.Name] = true
		}
	}
	if ahead := m.compare(ev); len(ahead) > 0 && !mutant.On(mutant.TrustStore) {
		return m.stop(Stop{Err: ErrStateAhead, Ahead: ahead})
	}
	return append(m.save(), m.finishAll()...)
}

// add takes over a part at its durable receipt.
func (m *Machine) add(d messages.Receipt) {
	m.parts[d.Part] = &part{durable: d}
	m.members[d.Load] = append(m.members[d.Load], d.Part)
	m.unsure[d.Part] = true
}

// compare takes over what the state store knows, and returns where it is ahead.
func (m *Machine) compare(ev Recovered) []Ahead {
	var ahead []Ahead
	for _, k := range ev.Stored {
		l, p := m.loads[k.Load], m.parts[k.Part]
		switch {
		case l != nil && l.id.Number > k.Version.Load: // it began again before the state store heard of it
		case p == nil:
			ahead = append(ahead, Ahead{Stored: k, Begun: l != nil && l.id == k.LoadID()})
		case k.Version.Compare(p.durable.Version) > 0, k.Version == p.durable.Version && !k.Position.Equal(p.durable.Position):
			ahead = append(ahead, Ahead{Stored: k, Durable: p.durable, Begun: true})
		default:
			p.saved = k
		}
	}
	for _, id := range ev.StoredFinished {
		l := m.loads[id.Name]
		switch {
		case l == nil || l.id.Number < id.Number || l.id == id && !l.finished:
			k := messages.Receipt{Load: id.Name, Version: messages.Version{Load: id.Number}}
			ahead = append(ahead, Ahead{Stored: k, Begun: l != nil && l.id == id})
		case l.id == id:
			l.savedFinished = true
		}
	}
	return ahead
}

func (m *Machine) onBegan(ev Began) []Effect {
	if l := m.loads[ev.Load.Name]; l != nil && l.id.Number >= ev.Load.Number {
		return m.finish(ev.Load.Name) // begun before the crash, and perhaps complete; Recovered told us
	}
	for _, id := range m.members[ev.Load.Name] {
		if p := m.parts[id]; p != nil && p.durable.Load == ev.Load.Name {
			delete(m.parts, id)
		}
	}
	delete(m.members, ev.Load.Name)
	m.loads[ev.Load.Name] = &load{id: ev.Load}
	for _, id := range ev.Parts {
		m.add(messages.Receipt{Part: id, Load: ev.Load.Name, Version: messages.Version{Load: ev.Load.Number}})
	}
	if len(ev.Parts) == 0 { // nothing of it will be saved
		return append(m.save(), m.finish(ev.Load.Name)...)
	}
	return m.save()
}

func (m *Machine) onStarted(ev Started) []Effect {
	p := m.parts[ev.Receipt.Part]
	if p == nil || ev.Token.Epoch != m.epoch || ev.Token.Compare(p.running.token) <= 0 {
		panic("checkpoint: started a task nobody planned")
	}
	if ev.Receipt.Version.Compare(p.durable.Version) < 0 {
		return m.stop(Stop{Err: ErrStateAhead, Ahead: []Ahead{{Stored: p.durable, Durable: ev.Receipt, Begun: true}}})
	}
	p.running = at{token: ev.Token}
	p.durable = ev.Receipt // how an unknown COMMIT ended
	m.unsure[ev.Receipt.Part] = true
	return m.save()
}

func (m *Machine) onAcked(ev Acked) []Effect {
	r := ev.Receipt
	p := m.parts[r.Part]
	switch {
	case ev.Pipeline != m.pipeline:
		return []Effect{Reject{ErrOtherPipeline}}
	case r.Token.Epoch != m.epoch:
		return []Effect{Reject{ErrStaleEpoch}}
	case p == nil:
		return []Effect{Reject{ErrUnknownPart}}
	case r.Token != p.running.token:
		return []Effect{Reject{ErrStaleAttempt}}
	case r.Version.Compare(p.durable.Version) <= 0:
		return nil // late or doubled: a newer ack said it all
	}
	p.durable = r
	m.unsure[r.Part] = true
	if mutant.On(mutant.AckCoversOthers) {
		for id, o := range m.parts {
			if o.durable.LoadID() == r.LoadID() {
				o.durable.Version, o.durable.Position, o.durable.Final = r.Version, r.Position, r.Final
				o.durable.Part = id
				m.unsure[id] = true
			}
		}
	}
	p.running.seq = ev.Seq
	return m.save()
}

// save starts the next transaction, unless one is in flight or nothing is new.
func (m *Machine) save() []Effect {
	if m.saving != nil {
		return nil
	}
	s, covers := m.unsaved()
	if len(s.Receipts) == 0 && len(s.Finished) == 0 {
		return nil
	}
	m.saveID++
	m.saving, m.covers = &s, covers
	return []Effect{s}
}

// unsaved returns the next transaction, empty if nothing is new.
func (m *Machine) unsaved() (Save, map[messages.PartID]at) {
	s := Save{ID: m.saveID + 1}
	covers := map[messages.PartID]at{}
	for _, id := range slices.Sorted(maps.Keys(m.unsure)) {
		if p := m.parts[id]; p == nil || p.durable.Version.Compare(p.saved.Version) <= 0 {
			delete(m.unsure, id)
		} else {
			s.Receipts = append(s.Receipts, p.durable) // I1: K is only ever a copy of D
			covers[id] = p.running
		}
	}
	for _, name := range slices.Sorted(maps.Keys(m.marks)) {
		if l := m.loads[name]; l == nil || !l.finished || l.savedFinished {
			delete(m.marks, name)
		} else {
			s.Finished = append(s.Finished, l.id)
		}
	}
	return s, covers
}

func (m *Machine) onSaved(ev Saved) []Effect {
	if m.saving == nil || ev.ID != m.saveID {
		return nil // of a save that was given up and done again
	}
	done := *m.saving
	m.saving = nil
	var out []Effect
	touched := map[string]bool{}
	for _, r := range done.Receipts {
		touched[r.Load] = true
		p := m.parts[r.Part]
		if p == nil || p.durable.LoadID() != r.LoadID() {
			continue // the load began again meanwhile
		}
		p.saved = r
		if c := m.covers[r.Part]; c.seq > 0 { // I3: confirm only what is persisted
			out = append(out, Tell{
				CheckpointCommitted: messages.CheckpointCommitted{Part: r.Part, Token: c.token, Seq: c.seq, Position: r.Position},
				Receipt:             r,
			})
		}
		if r.Final {
			out = append(out, PartDone{r.Part, r.LoadID()})
		}
	}
	for _, id := range done.Finished {
		touched[id.Name] = true
		if l := m.loads[id.Name]; l.id == id {
			l.savedFinished = true
		}
	}
	return append(append(out, m.finish(slices.Sorted(maps.Keys(touched))...)...), m.save()...)
}

// finish asks for those of the loads whose parts are all final and persisted, and
// reports those that are finished; both may be repeated.
func (m *Machine) finish(names ...string) []Effect {
	var out []Effect
	for _, name := range names {
		l := m.loads[name]
		switch {
		case l == nil:
		case l.savedFinished:
			out = append(out, Done{l.id})
		case !l.finished && !m.partial(name):
			out = append(out, FinishLoad{l.id})
		}
	}
	return out
}

// finishAll is finish for every load.
func (m *Machine) finishAll() []Effect { return m.finish(slices.Sorted(maps.Keys(m.loads))...) }

// partial reports whether some part of a load is not final and persisted (I5: one part of
// two moves nothing).
func (m *Machine) partial(name string) bool {
	return slices.ContainsFunc(m.members[name], func(id messages.PartID) bool {
		p := m.parts[id]
		return p != nil && p.durable.Load == name && !p.saved.Final && (!p.durable.Final || !mutant.On(mutant.FinishEarly))
	})
}

func (m *Machine) onSaveFailed(ev SaveFailed) []Effect {
	if m.saving == nil || ev.ID != m.saveID {
		return nil
	}
	m.saving = nil // the next Tick or ack tries again
	if ev.Fenced {
		return m.stop(Stop{Err: ErrFenced})
	}
	return nil
}

func (m *Machine) onFinished(ev Finished) []Effect {
	if l := m.loads[ev.Load.Name]; l != nil && l.id == ev.Load {
		l.finished = true
		m.marks[ev.Load.Name] = true
	}
	return m.save()
}

func (m *Machine) onTick() []Effect {
	out := append(m.save(), m.finishAll()...)
	for _, id := range slices.Sorted(maps.Keys(m.parts)) {
		if p := m.parts[id]; p.running.token != (messages.Token{}) && !p.durable.Final {
			out = append(out, Ask{id, p.running.token})
		}
	}
	return out
}

func (m *Machine) stop(s Stop) []Effect {
	m.state = stateStopped
	return []Effect{s}
}

// Agrees reports whether the state store has all that the destination is known to have,
// or never will have.
func (m *Machine) Agrees() bool {
	s, _ := m.unsaved()
	return m.state == stateStopped || m.saving == nil && len(s.Receipts) == 0 && len(s.Finished) == 0
}

// Running reports whether the machine takes events other than Recovered.
func (m *Machine) Running() bool { return m.state == stateRunning }
