package run

import (
	"fmt"
	"slices"
	"strings"

	"rapidbyte.io/node/actors/checkpoint"
	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// refusal completes a failure that says that source, destination and state store do not
// fit together: what the state store has, and which command resolves it.
func (a *Actor) refusal(f messages.Failure, ahead []checkpoint.Ahead) messages.Failure {
	switch f.Code {
	case messages.CodeStateAhead, messages.CodeSourceGap:
	default:
		return f
	}
	streams := []messages.StreamID{f.Where.Stream}
	for _, x := range ahead {
		if s := messages.StreamID(x.Stored.Load); !slices.Contains(streams, s) {
			streams = append(streams, s)
		}
	}
	if f.Where.Stream == "" {
		return f
	}
	if len(ahead) == 0 {
		f = a.stored(f)
	}
	first, again := "", a.cfg.Spec.startOver(streams, f.Code == messages.CodeSourceGap)
	if info, _ := f.Code.Info(); f.Next != info.Next {
		first = f.Next // the connector knows better
	}
	if older(ahead) {
		first = "If the whole destination was restored to an earlier state, take over what it has: " + messages.Command("state", "rebuild", messages.Document) + "."
	}
	if first != "" {
		again = first + " Otherwise " + strings.ToLower(again[:1]) + again[1:]
	}
	f.Next = again
	return f
}

// stored adds to a failure at a stream how far the state store is.
func (a *Actor) stored(f messages.Failure) messages.Failure {
	for _, k := range a.cfg.State.Receipts {
		if k.Load != string(f.Where.Stream) || f.Where.Part != "" && k.Part != f.Where.Part {
			continue
		}
		if p := a.progress.parts[k.Part]; p != nil && p.receipt.Version.Compare(k.Version) > 0 {
			k = p.receipt // persisted since
		}
		f.Where.Part = k.Part
		if f.Where.Position == "" {
			f.Where.Position = k.Position.String()
		}
		f.Why = strings.TrimPrefix(f.Why+"; ", "; ") + fmt.Sprintf("the state store has task %s at %s", k.Part, k.Reached())
		return f
	}
	return f
}

// older reports whether the destination may be whole, as it was some time ago: of what it
// knows nothing is missing.
func older(ahead []checkpoint.Ahead) bool {
	for _, x := range ahead {
		if x.Begun && x.Stored.Part != "" && (x.Durable.Part == "" || x.Durable.Version == x.Stored.Version) {
			return false
		}
	}
	return len(ahead) > 0
}

// startOver is the advice to load streams again. Those that the document does not have
// any more are forgotten. An upsert keeps the rows that the source no longer has: those of
// another source are not wanted.
func (s Spec) startOver(streams []messages.StreamID, otherSource bool) string {
	run := []string{"run", messages.Document, "--full-refresh"}
	reset := []string{"state", "reset", messages.Document}
	var again, gone bool
	var kept []string
	for _, id := range streams {
		st, ok := s.stream(id)
		if !ok {
			gone, reset = true, append(reset, "--stream", string(id))
			continue
		}
		again, run = true, append(run, "--stream", string(id))
		if st.Mode == connectors.ModeAppend || st.Mode == connectors.ModeUpsert && otherSource {
			kept = append(kept, st.Target)
		}
	}
	var out []string
	if again {
		out = append(out, "load again with "+messages.Command(run...))
	}
	if gone {
		out = append(out, "forget what is not in this run with "+messages.Command(reset...))
	}
	text := strings.Join(out, ", and ")
	if len(kept) > 0 {
		text += "; empty the target " + strings.Join(kept, ", ") + " first, or what is in it stays beside what is read again"
	}
	return strings.ToUpper(text[:1]) + text[1:] + "."
}

// named returns known with a status for each load of which there are only receipts, so that
// a new load of that name is numbered above them.
func named(known connectors.Recovered) connectors.Recovered {
	known.Loads = slices.Clone(known.Loads)
	for _, r := range known.Receipts {
		i := slices.IndexFunc(known.Loads, func(l connectors.LoadStatus) bool { return l.ID.Name == r.Load })
		switch {
		case i < 0:
			known.Loads = append(known.Loads, connectors.LoadStatus{ID: r.LoadID()})
		case known.Loads[i].ID.Number < r.Version.Load:
			known.Loads[i] = connectors.LoadStatus{ID: r.LoadID()}
		}
	}
	return known
}

// Incomplete says why what a destination holds cannot be relied on, and which command
// resolves it; nil: it can. Nothing is wanted of streams that are loaded afresh.
func (s Spec) Incomplete(known connectors.Recovered) *messages.Failure {
	var fresh []string
	for _, st := range s.Streams {
		if st.Fresh {
			fresh = append(fresh, string(st.Stream))
		}
	}
	f := s.incomplete(known, fresh)
	if f != nil {
		f.Next = s.startOver([]messages.StreamID{f.Where.Stream}, false)
	}
	return f
}

// incomplete finds receipts without their load, and loads without all of their receipts:
// somebody has removed rows of the bookkeeping, and nobody can know what was read. forget
// names the loads of which nothing is wanted any more.
func (s Spec) incomplete(known connectors.Recovered, forget []string) *messages.Failure {
	refuse := func(load string, part messages.PartID, why string) *messages.Failure {
		return &messages.Failure{
			Code: messages.CodeStateAhead, Kind: string(connectors.KindConfig), What: "the destination's bookkeeping is incomplete",
			Where: messages.Place{Pipeline: s.Pipeline, Stream: messages.StreamID(load), Part: part, Stage: connectors.StageCheckpoint}, Why: why,
		}
	}
	count := map[messages.LoadID]int{}
	for _, r := range known.Receipts {
		count[r.LoadID()]++
		begun := slices.ContainsFunc(known.Loads, func(l connectors.LoadStatus) bool { return l.ID == r.LoadID() })
		if !begun && !slices.Contains(forget, r.Load) {
			return refuse(r.Load, r.Part, fmt.Sprintf("the destination has a receipt of task %s at %s, and does not know that load", r.Part, r.Reached()))
		}
	}
	for _, l := range known.Loads {
		if n := count[l.ID]; n < l.Parts && !slices.Contains(forget, l.ID.Name) {
			return refuse(l.ID.Name, "", fmt.Sprintf("the destination has %d of %d receipts of load %d", n, l.Parts, l.ID.Number))
		}
	}
	return nil
}
