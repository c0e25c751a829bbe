package simulation_test

import (
	"fmt"
	"slices"
	"strings"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/statestore"
)

// fail keeps the first invariant that does not hold.
func (w *world) fail(format string, args ...any) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.err == nil {
		w.err = fmt.Errorf(format, args...)
	}
}

// note counts a rare state.
func (w *world) note(what string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.seen[what]++
}

// sieved is what the transforms of the pipeline make of rows.
func (w *world) sieved(in []row) (kept, rejected []row) {
	if slices.Contains(w.steps, false) {
		return sieve(in)
	}
	return in, nil
}

// checkCommit: the rows are those of the source between the receipt and the barrier,
// each once, in order, and the counts say so (I2, I7).
func (w *world) checkCommit(e *entry, t *transaction) {
	sp := splitOf(e.part)
	from, to := sp.at(e.receipt.Position), sp.at(t.receipt.Position)
	if to < from {
		w.fail("%s goes back from %d to %d", t.receipt.Part, from, to)
	}
	all := sp.span(from, to)
	kept, rejected := w.sieved(all)
	if !slices.Equal(kept, t.kept) || !slices.Equal(rejected, t.rejected) {
		w.fail("I2: %s from %d to %d: committed %v and rejected %v, the source has %v and %v", t.receipt.Part, from, to, t.kept, t.rejected, kept, rejected)
	}
	r := t.receipt.Rows
	if r.Read != to-sp.From || r.Arrived != r.Applied+r.Rejected {
		w.fail("I7: %s at %d: %+v", t.receipt.Part, to, r)
	}
	if sp.To >= 0 && t.receipt.Final != (to == sp.To) && t.receipt.Final {
		w.fail("%s is final at %d of %d", t.receipt.Part, to, sp.To)
	}
}

// checkBegin: what is there is not loaded a second time.
func (w *world) checkBegin(old *begun, l connectors.Load) {
	st := w.origin.stream(messages.StreamID(l.ID.Name))
	if st.mode == connectors.ModeAppend && !old.status.Finished {
		for _, e := range old.parts {
			if e.receipt.Version.Commit > 0 {
				w.fail("I2: load %d of %s is begun over the committed rows of load %d", l.ID.Number, st.id, old.status.ID.Number)
			}
		}
	}
	if st.sync != connectors.SyncFullRefresh || !old.status.Finished {
		return
	}
	if l.Run == old.status.Run || !w.completed[old.status.Run] && !w.forgot {
		w.fail("%s is loaded twice: load %d of run %s is finished, run %s begins load %d", st.id, old.status.ID.Number, old.status.Run, l.Run, l.ID.Number)
	}
}

// checkAppend compares what readers see with the finished loads.
func (w *world) checkAppend(st *stream, t *table) {
	var all []row
	for _, sp := range t.whole {
		kept, _ := w.sieved(sp.span(sp.From, sp.To))
		all = append(all, kept...)
	}
	w.same("I2: "+string(st.id), t.rows, all)
}

// same compares rows with how often they are there.
func (w *world) same(what string, have map[row]int, want []row) {
	count := map[row]int{}
	for _, r := range want {
		count[r]++
	}
	for r, n := range count {
		if have[r] != n {
			w.fail("%s: row %d is there %d times, want %d", what, r.id(), have[r], n)
		}
	}
	if len(count) != len(have) {
		w.fail("%s: %d rows are there, want %d", what, len(have), len(count))
	}
}

// checkSave: the state store is a copy of receipts that the destination has (I1).
func (w *world) checkSave(f *file, e messages.Epoch, u statestore.Update) {
	for _, r := range u.Receipts {
		d := w.house.entry(r.Part, r.Load)
		l := w.house.loads[r.Load]
		if l != nil && l.status.ID.Number > r.Version.Load {
			continue // it has begun again since
		}
		if d == nil || r.Version.Compare(d.receipt.Version) > 0 {
			w.fail("I1: the state store is told that %s is at %d.%d, and it is not", r.Part, r.Version.Load, r.Version.Commit)
			continue
		}
		had := w.proofs[proof{r.Part, r.Version}]
		if r.Version.Commit > 0 && (!had.Position.Equal(r.Position) || had.Final != r.Final) {
			w.fail("I1: the state store is told another position of %s than was committed", r.Part)
		}
		if k := f.receipts[r.Part]; r.Version.Compare(k.Version) > 0 && r.Token.Epoch > 0 && r.Token.Epoch < e {
			w.note("state repaired from a receipt")
		}
	}
	if u.Run != nil && u.Run.State == messages.RunCompleted {
		w.completed[u.Run.ID] = true // whether or not anybody lived to hear it
	}
	for _, id := range u.Finished {
		if l := w.house.loads[id.Name]; l == nil || l.status.ID == id && !l.status.Finished {
			w.fail("I5: the state store is told that load %d of %s is finished, and it is not", id.Number, id.Name)
		}
	}
}

// checkResult: what a run says of itself.
func (w *world) checkResult(n *node, r messages.RunResult) {
	if n.dead {
		return
	}
	switch r.State {
	case messages.RunCompleted:
		w.completed[r.RunID] = true
		w.checkCompleted(n, r)
	case messages.RunFailed:
		w.checkFailed(n, r)
	case messages.RunDrained:
		if !n.drains {
			w.fail("run %s says drained, and nobody asked", r.RunID)
		}
	case messages.RunRunning:
		w.fail("run %s has ended as running", r.RunID)
	}
}

// checkCompleted: nobody says so too early (I10).
func (w *world) checkCompleted(n *node, r messages.RunResult) {
	if r.Epoch != w.house.epoch || n.file.epoch != r.Epoch {
		return // somebody has taken over since
	}
	for _, st := range w.origin.streams {
		l := w.house.loads[string(st.id)]
		if l == nil {
			w.fail("I10: run %s says completed, %s was never begun", r.RunID, st.id)
			continue
		}
		if !st.endless && (!l.status.Finished || n.file.finished[l.status.ID.Name] != l.status.ID.Number) {
			w.fail("I10: run %s says completed, load %d of %s is not finished and persisted", r.RunID, l.status.ID.Number, st.id)
		}
		for id, e := range l.parts {
			k := n.file.receipts[id]
			if e.receipt.Version.Commit > 0 && k.Version != e.receipt.Version {
				w.fail("I10: run %s says completed, the state store has %d.%d of %s, the destination %d.%d", r.RunID,
					k.Version.Load, k.Version.Commit, id, e.receipt.Version.Load, e.receipt.Version.Commit)
			}
			if at := splitOf(e.part).at(e.receipt.Position); st.endless && at < n.saw[st.id] {
				w.fail("I10: run %s says completed, %s is at %d of %d", r.RunID, id, at, n.saw[st.id])
			}
		}
	}
}

// checkFailed: there is a cause that was simulated.
func (w *world) checkFailed(n *node, r messages.RunResult) {
	if r.Failure == nil {
		w.fail("run %s failed without a cause", r.RunID)
		return
	}
	f := *r.Failure
	explained := false
	switch f.Code {
	case messages.CodeFenced:
		explained = w.house.opened > n.drawnAt || n.file.drawnAt > n.drawnAt // by somebody, since
	case messages.CodeStateAhead:
		explained = n.ahead
		w.reset = true
	case messages.CodeDestForeign:
		explained = n.foreign
	case messages.CodePanic:
		explained = strings.Contains(f.Why, "panic: simulated") || n.panics && strings.Contains(f.Why, "checkpoint actor has panicked")
	case messages.CodeSource, messages.CodeDest, messages.CodeState, messages.CodeStateFull, messages.CodeStalled, messages.CodeSourceGap:
		explained = !n.calm && f.Kind != string(connectors.KindInternal) && f.Kind != string(connectors.KindGap)
	default:
	}
	if !explained {
		w.fail("run %s of %s failed without cause: %v", r.RunID, n.name, f)
	}
}
