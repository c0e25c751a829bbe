package crashtest

import (
	"fmt"
	"slices"

	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/failpoint"
)

var (
	withSteps = []string{"append", "upsert", "replace", "incremental", "files", "duckdb"}
	undecoded = []string{"passthrough", "passthrough_upsert"}
	everyMode = slices.Concat(withSteps, undecoded)
	ofServers = slices.Concat([]string{"append", "upsert", "replace", "incremental"}, undecoded)
	ofCommits = append(slices.Clone(ofServers), "duckdb") // they have transactions
	ofSwaps   = []string{"replace", "files", "duckdb"}
	ofFiles   = []string{"files"}
)

// belongs says in which modes a run comes by a point. A mode that is not named never does:
// a cell of it would mean nothing.
var belongs = map[failpoint.Point][]string{
	failpoint.SourceRead:     everyMode,
	failpoint.SourceBatch:    everyMode,
	failpoint.BatchSent:      everyMode,
	failpoint.TransformDone:  withSteps,
	failpoint.DestBegin:      ofCommits,
	failpoint.DestCopyMid:    ofCommits,
	failpoint.DestCopyAfter:  everyMode,
	failpoint.DestReceipt:    ofCommits,
	failpoint.DestCommitSent: ofServers, // DuckDB is in the process, a manifest is linked by one call
	failpoint.DestCommitted:  everyMode,
	failpoint.AckReceived:    everyMode,
	failpoint.StateMid:       everyMode,
	failpoint.StateAfter:     everyMode,
	failpoint.EpochIssued:    everyMode,
	failpoint.EpochInstalled: everyMode,
	failpoint.ResumeRead:     everyMode,
	failpoint.StagingFull:    ofSwaps,
	failpoint.SwapBefore:     ofSwaps,
	failpoint.SwapAfter:      ofSwaps,
	failpoint.DeadLettered:   {"append"}, // no transform that rejects rows is available, and no other target refuses one
	failpoint.FileWrite:      ofFiles,
	failpoint.FileSync:       ofFiles,
	failpoint.FileRename:     ofFiles,
	failpoint.ManifestLink:   ofFiles,
	failpoint.DirSync:        ofFiles,
	failpoint.FinishBefore:   everyMode,
	failpoint.FinishAfter:    everyMode,
	failpoint.Draining:       everyMode,
}

// once are the points that a run comes by a single time. Where a mode has one part it
// opens one reader.
func once(m mode, p failpoint.Point) bool {
	return slices.Contains([]failpoint.Point{
		failpoint.EpochIssued, failpoint.EpochInstalled, failpoint.StagingFull, failpoint.SwapBefore, failpoint.SwapAfter,
		failpoint.FinishBefore, failpoint.FinishAfter, failpoint.Draining,
	}, p) || m.servers && (p == failpoint.SourceRead || p == failpoint.ResumeRead)
}

// compareHits compares the table with where an undisturbed run came by.
func compareHits(m mode, hits map[failpoint.Point]int) error {
	for _, p := range failpoint.Points() {
		n, says := hits[p], slices.Contains(belongs[p], m.name)
		switch {
		case says != (n > 0):
			return fmt.Errorf("the table says %t of %s in mode %s, an undisturbed run came by %d times", says, p, m.name, n)
		case says && once(m, p) != (n == 1):
			return fmt.Errorf("the table says that %s is met once in mode %s: %t, an undisturbed run came by %d times", p, m.name, once(m, p), n)
		}
	}
	return nil
}

// exits is the exit code of the process of a cell. The run tries again by itself and
// completes, but for the few places where nobody does:
//
//   - no epoch was had: there is no owner, and nothing to try again with;
//   - a panic inside the embedded store, which does not know its locks any more;
//   - the run actor itself: a drain ends there.
func exits(c cell) int {
	switch {
	case c.point == failpoint.EpochIssued, c.point == failpoint.StateMid && c.action == panics && c.store == "bbolt":
		return messages.ExitState
	case c.point == failpoint.Draining && c.action == panics:
		return messages.ExitInternal
	case c.point == failpoint.Draining && c.action == fails:
		return messages.ExitSource
	}
	return messages.ExitOK
}

// combination is what a cell varies beside its mode and point. They are in an order in
// which each three in a row have every action, each six every store with every action.
type combination struct {
	action, store string
	middle        bool
}

func combinations() (out []combination) {
	for i := range 12 {
		out = append(out, combination{
			action: []string{kill9, panics, fails}[i%3],
			store:  stores[(i/3)%2],
			middle: (i+i/3+i/6)%2 == 1,
		})
	}
	return out
}

// stores are the state stores.
var stores = []string{"bbolt", "postgres"}

// recovery are the points of a run that recovers, five deep.
var recovery = []failpoint.Point{
	failpoint.EpochIssued, failpoint.EpochInstalled, failpoint.ResumeRead, failpoint.EpochInstalled, failpoint.EpochIssued,
}

// deep crashes five times while it recovers.
func deep(m mode, store string) cell {
	return cell{mode: m.name, store: store, point: failpoint.DestCommitted, action: kill9, middle: true, then: recovery}
}

// shortCells has each point in each of its modes once; the other values take turns.
func shortCells() (out []cell) {
	turn := 0
	all := combinations()
	for _, p := range failpoint.Points() {
		for _, m := range modes {
			if !slices.Contains(belongs[p], m.name) {
				continue
			}
			v := all[turn%len(all)]
			turn++
			out = append(out, cell{mode: m.name, store: v.store, point: p, action: v.action, middle: v.middle && !once(m, p)})
		}
		turn++ // the next point begins elsewhere
	}
	for i, m := range modes {
		out = append(out, deep(m, stores[i%len(stores)]))
	}
	return out
}

// fullCells are all that mean something.
func fullCells() (out []cell) {
	for _, m := range modes {
		for _, store := range stores {
			for _, p := range failpoint.Points() {
				if !slices.Contains(belongs[p], m.name) {
					continue
				}
				for _, action := range []string{kill9, panics, fails} {
					out = append(out, cell{mode: m.name, store: store, point: p, action: action})
					if !once(m, p) {
						out = append(out, cell{mode: m.name, store: store, point: p, action: action, middle: true})
					}
				}
			}
			out = append(out, doubleCells(m, store)...)
			out = append(out, deep(m, store))
		}
	}
	return out
}

// doubleCells are killed once more while they recover.
func doubleCells(m mode, store string) (out []cell) {
	for _, first := range []failpoint.Point{failpoint.BatchSent, failpoint.DestCopyAfter, failpoint.DestCommitted, failpoint.AckReceived, failpoint.StateAfter, failpoint.EpochInstalled} {
		for _, second := range []failpoint.Point{failpoint.EpochIssued, failpoint.EpochInstalled, failpoint.ResumeRead} {
			out = append(out, cell{mode: m.name, store: store, point: first, action: kill9, middle: !once(m, first), then: []failpoint.Point{second}})
		}
	}
	return out
}
