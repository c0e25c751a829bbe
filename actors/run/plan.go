package run

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"

	"github.com/apache/arrow-go/v18/arrow"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// planned is a load as it will be begun, and how its rows get there.
type planned struct {
	load   connectors.Load
	inputs map[messages.StreamID][]connectors.StreamPlan // per stream: what the source emits, then what each applied step receives
	reads  []connectors.StreamPlan                       // as the source reads them
	stream messages.StreamID                             // for progress; of a slot: its name
	lane   Lane
}

// Plan turns what the source will read into what the destination begins: the
// document's mode, key and target, and the schema behind the transforms. It decides
// about unfinished loads. Pure; check uses it too.
func (s Spec) Plan(p connectors.Plan, known connectors.Recovered) (loads []connectors.Load, warnings []string, err error) {
	ps, warnings, err := s.plan(p, known, "")
	for _, l := range ps {
		loads = append(loads, l.load)
	}
	return loads, warnings, err
}

func (s Spec) plan(p connectors.Plan, known connectors.Recovered, run string) ([]planned, []string, error) {
	var out []planned
	var warnings []string
	for _, l := range p.Loads {
		if s.loaded(l, known, run) {
			continue
		}
		one, warning, err := s.planLoad(l, p.Identity, known)
		if err != nil {
			return nil, warnings, err
		}
		if warning != "" {
			warnings = append(warnings, warning)
		}
		one.load.Run = run
		out = append(out, one)
	}
	return out, warnings, s.checkNames(out)
}

// checkNames refuses a plan in which two parts or loads share a name: two tasks would
// write under one receipt.
func (s Spec) checkNames(ps []planned) error {
	loads, parts := map[string]bool{}, map[messages.PartID]bool{}
	for _, l := range ps {
		if loads[l.load.ID.Name] {
			return s.bug(fmt.Errorf("two loads are named %q", l.load.ID.Name))
		}
		loads[l.load.ID.Name] = true
		for _, p := range l.load.Parts {
			if parts[p.ID] {
				return s.bug(fmt.Errorf("two parts are named %q", p.ID))
			}
			parts[p.ID] = true
		}
	}
	return nil
}

// begun returns the spec for one more go of a run: what the run has begun to load
// afresh is not begun afresh again.
func (s Spec) begun(known connectors.Recovered, run string) Spec {
	s.Streams = slices.Clone(s.Streams)
	for i, st := range s.Streams {
		if slices.ContainsFunc(known.Loads, func(k connectors.LoadStatus) bool {
			return k.ID.Name == string(st.Stream) && k.Run == run
		}) {
			s.Streams[i].Fresh = false
		}
	}
	return s
}

// loaded reports whether a run that goes on has finished this pass already: then a
// new load of it would append a second copy. A source that remembers plans only what
// is new, and so does one that reads behind a cursor.
func (s Spec) loaded(l connectors.Load, known connectors.Recovered, run string) bool {
	i := slices.IndexFunc(known.Loads, func(k connectors.LoadStatus) bool { return k.ID.Name == l.ID.Name })
	if i < 0 || l.Continuity != "" || !known.Loads[i].Finished || known.Loads[i].Run == "" {
		return false
	}
	st, ok := s.stream(messages.StreamID(l.ID.Name))
	if ok && st.Fresh {
		return false
	}
	m, remembers := s.Source.(connectors.Rememberer)
	onlyNew := remembers && m.Remembers() || st.Sync == connectors.SyncIncremental
	if ok && onlyNew && st.Mode != connectors.ModeReplace {
		return false
	}
	return known.Loads[i].Run == run
}

func (s Spec) planLoad(l connectors.Load, identity string, known connectors.Recovered) (planned, string, error) {
	one := planned{inputs: map[messages.StreamID][]connectors.StreamPlan{}, stream: messages.StreamID(l.ID.Name)}
	if len(l.Streams) == 0 {
		return one, "", s.bug(fmt.Errorf("load %q has no stream", l.ID.Name))
	}
	first, ok := s.stream(l.Streams[0].Stream)
	if !ok {
		return one, "", s.bug(fmt.Errorf("stream %q was not asked for", l.Streams[0].Stream))
	}
	m, remembers := s.Source.(connectors.Rememberer)
	l.Mode, l.Identity = first.Mode, identity
	l.Adds = remembers && m.Remembers() && l.Mode != connectors.ModeReplace && !first.Fresh
	if l.ID.Number <= first.Above {
		renumber(&l, first.Above+1)
	}
	one.reads = l.Streams
	out := make([]connectors.StreamPlan, 0, len(l.Streams))
	for _, sp := range l.Streams {
		spec, ok := s.stream(sp.Stream)
		if !ok {
			return one, "", s.bug(fmt.Errorf("stream %q was not asked for", sp.Stream))
		}
		inputs, err := s.inputs(sp)
		if err != nil {
			return one, "", err
		}
		one.inputs[sp.Stream] = inputs
		last := inputs[len(inputs)-1]
		if len(spec.Key) > 0 {
			last.Key = spec.Key
		}
		last.Target, last.Rows = spec.Target, sp.Rows
		if err := checkShape(last, l.Mode); err != nil {
			return one, "", err
		}
		out = append(out, last)
	}
	l.Streams = out
	l.Shape = shapeOf(l)
	warning, err := s.carryOn(&l, first, known)
	one.lane = s.offer(&l)
	one.load = l
	return one, warning, err
}

// inputs returns the stream as the source emits it and as each step leaves it; the
// last one is what the writer receives.
func (s Spec) inputs(sp connectors.StreamPlan) ([]connectors.StreamPlan, error) {
	out := []connectors.StreamPlan{sp}
	for _, t := range s.Transforms {
		if !t.appliesTo(sp.Stream) {
			continue
		}
		schema, err := t.Schema(sp.Stream, sp.Schema)
		if err != nil {
			at := messages.Place{Pipeline: s.Pipeline, Stream: sp.Stream, Stage: connectors.StageTransform}
			return nil, connectors.FailureOf(err, at)
		}
		sp.Schema = schema
		out = append(out, sp)
	}
	return out, nil
}

// carryOn decides about an unfinished load: go on, or begin again under the next
// number. A new load passes through.
func (s Spec) carryOn(l *connectors.Load, st Stream, known connectors.Recovered) (warning string, err error) {
	i := slices.IndexFunc(known.Loads, func(k connectors.LoadStatus) bool { return k.ID.Name == l.ID.Name })
	if i < 0 {
		return "", nil
	}
	before := known.Loads[i]
	if l.Continuity == "" {
		if l.ID.Number <= before.ID.Number {
			return "", s.bug(fmt.Errorf("load %d of %q is not above %d", l.ID.Number, l.ID.Name, before.ID.Number))
		}
		return "", nil
	}
	if before.ID != l.ID || before.Finished {
		return "", s.bug(fmt.Errorf("load %d of %q is not the unfinished one", l.ID.Number, l.ID.Name))
	}
	at := messages.Place{Pipeline: s.Pipeline, Stream: messages.StreamID(l.ID.Name), Stage: connectors.StageSource}
	untouched := !touched(known, l.ID)
	other := before.Identity != "" && before.Identity != l.Identity
	modeChanged := before.Mode != "" && before.Mode != l.Mode
	shapeChanged := before.Shape != "" && before.Shape != l.Shape
	if shapeChanged && !modeChanged && !other && s.evolves(*l, st) {
		return "", nil // Begin brings the target to the new shape, or refuses
	}
	switch {
	case untouched && (other || modeChanged || shapeChanged || l.Continuity != connectors.ContinueExact):
		restart(l)
		return "", nil
	case modeChanged && (before.Mode == connectors.ModeAppend || l.Mode == connectors.ModeAppend):
		return "", &connectors.Error{
			Op: "continue load", Kind: connectors.KindConfig, Commit: connectors.CommitNone, Code: messages.CodeDocConflict, Place: at,
			Err:  fmt.Errorf("the unfinished load was begun as %s, the document now says %s", before.Mode, l.Mode),
			Next: "Let the load finish under its old write_mode first, or start over with `--full-refresh`.",
		}
	case shapeChanged && l.Mode == connectors.ModeAppend:
		return "", &connectors.Error{
			Op: "continue load", Kind: connectors.KindConfig, Commit: connectors.CommitNone, Code: messages.CodeDocConflict, Place: at,
			Err:  errors.New("the unfinished load was begun with another target or other columns than the document now leads to"),
			Next: "Let the load finish with the old target and transforms first, or start over with `--full-refresh`.",
		}
	case modeChanged || shapeChanged:
		restart(l) // rows of both shapes never stand side by side
		return "", nil
	case other:
		return "", lost(at, fmt.Errorf("the unfinished load was read from %q, this is %q%s", before.Identity, l.Identity, reached(known, l.ID)))
	case l.Continuity == connectors.ContinueExact:
		return "", nil
	case l.Mode != connectors.ModeAppend:
		restart(l) // staging is begun again; an upsert reads again
		return "", nil
	case l.Continuity == connectors.ContinueLost:
		return "", lost(at, fmt.Errorf("the positions of the unfinished load mean nothing to the source any more%s", reached(known, l.ID)))
	case st.OnLost == LostFail:
		return "", lost(at, errors.New("the snapshot of the unfinished load is gone, and on_lost_snapshot is fail"))
	}
	return fmt.Sprintf("stream %s: two snapshots were read; a row that changed between them may be missing or doubled (on_lost_snapshot: continue)", l.ID.Name), nil
}

// evolves reports whether a history that goes on may change its columns: rows come
// only behind the position, so those before it are not read again.
func (s Spec) evolves(l connectors.Load, st Stream) bool {
	e, ok := s.Destination.(connectors.Evolver)
	return ok && st.Sync == connectors.SyncIncremental && l.Continuity == connectors.ContinueExact && e.Evolves(l.Mode)
}

// touched reports whether any part of the load has committed something.
func touched(known connectors.Recovered, id messages.LoadID) bool {
	return slices.ContainsFunc(known.Receipts, func(r messages.Receipt) bool { return r.LoadID() == id && r.Version.Commit > 0 })
}

// reached says how far the destination has come in a load, as the end of a sentence.
func reached(known connectors.Recovered, id messages.LoadID) string {
	for _, r := range known.Receipts {
		if r.LoadID() == id && r.Version.Commit > 0 {
			return fmt.Sprintf("; the destination has task %s at %s", r.Part, r.Reached())
		}
	}
	return ""
}

// shapeOf returns the fingerprint of where the rows of l go and what they look like
// there.
func shapeOf(l connectors.Load) string {
	h := sha256.New()
	for _, s := range l.Streams {
		fmt.Fprintf(h, "%q > %q", s.Stream, s.Target)
		if l.Mode == connectors.ModeUpsert {
			fmt.Fprintf(h, " by %q", s.Key)
		}
		for _, f := range s.Schema.Fields() {
			fmt.Fprintf(h, ", %q %s", f.Name, f.Type)
		}
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

// restart gives the load the next number: Begin drops what the old one staged.
func restart(l *connectors.Load) {
	l.Continuity = ""
	renumber(l, l.ID.Number+1)
}

func lost(at messages.Place, err error) error {
	return &connectors.Error{
		Op: "continue load", Kind: connectors.KindGap, Commit: connectors.CommitNone,
		Code: messages.CodeSourceGap, Place: at, Err: err,
	}
}

// checkShape refuses what no destination could hold.
func checkShape(sp connectors.StreamPlan, mode connectors.WriteMode) error {
	at := messages.Place{Stream: sp.Stream}
	fail := func(code messages.Code, field string, err error) error {
		at.Field = field
		return &connectors.Error{Op: "plan stream", Kind: connectors.KindSchema, Commit: connectors.CommitNone, Code: code, Place: at, Err: err}
	}
	if sp.Schema == nil || sp.Schema.NumFields() == 0 {
		return fail(messages.CodeSchemaEmpty, "", errors.New("the stream has no columns"))
	}
	seen := map[string]bool{}
	for _, f := range sp.Schema.Fields() {
		switch {
		case f.Name == "":
			return fail(messages.CodeSchemaName, "", errors.New("a column has an empty name"))
		case seen[f.Name]:
			return fail(messages.CodeSchemaName, f.Name, errors.New("two columns have this name"))
		}
		seen[f.Name] = true
	}
	if mode == connectors.ModeUpsert && len(sp.Key) == 0 {
		return fail(messages.CodeSchemaColumn, "primary_key",
			errors.New("write_mode upsert needs a key, and neither the document nor the source names one"))
	}
	for _, k := range sp.Key {
		if !seen[k] && mode == connectors.ModeUpsert {
			return fail(messages.CodeSchemaColumn, k, fmt.Errorf("the key column is not among the columns that arrive: %s", names(sp.Schema)))
		}
	}
	return nil
}

func names(s *arrow.Schema) string {
	out := ""
	for i, f := range s.Fields() {
		if i == 12 {
			return out + ", .."
		}
		if i > 0 {
			out += ", "
		}
		out += f.Name
	}
	return out
}

func (s Spec) stream(id messages.StreamID) (Stream, bool) {
	i := slices.IndexFunc(s.Streams, func(x Stream) bool { return x.Stream == id })
	if i < 0 {
		return Stream{}, false
	}
	return s.Streams[i], true
}

// Specs returns what the source is asked for.
func (s Spec) Specs() []connectors.StreamSpec {
	out := make([]connectors.StreamSpec, len(s.Streams))
	for i, st := range s.Streams {
		out[i] = st.StreamSpec
	}
	return out
}

func (s Spec) bug(err error) error {
	return &connectors.Error{Op: "plan load", Kind: connectors.KindInternal, Commit: connectors.CommitNone, Place: messages.Place{Pipeline: s.Pipeline}, Err: err}
}
