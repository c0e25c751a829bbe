package file

import (
	"context"
	"errors"
	"fmt"
	"path"
	"sync"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/file/manifest"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/failpoint"
)

// session is one owner's access to the folder. Every change is one manifest: the
// newest one is read, the change decided by package manifest, and the result
// published under the next number. Whoever else publishes first makes it read
// and decide again.
type session struct {
	config    DestinationConfig
	folder    *folder
	epoch     messages.Epoch
	recovered connectors.Recovered // at the moment of the fence; fixed

	mu    sync.Mutex // serialises changes of this session, and guards what follows
	known *manifest.Manifest
	users int // the session and its open writers; the last one closes the root
	shut  bool
}

// takeOver registers the epoch and removes what older owners left.
func (s *session) takeOver(r connectors.SessionRequest) error {
	err := s.update("take the folder over", func(m *manifest.Manifest) (*manifest.Manifest, error) {
		return m.TakeOver(r)
	})
	if err != nil {
		return err
	}
	s.recovered = s.known.Recovered()
	if err := s.folder.sweep(s.known); err != nil {
		return destError("remove what an older owner left", s.folder.path, connectors.CommitNone, err)
	}
	return nil
}

// update publishes what decide returns for the newest manifest, and decides again
// when somebody else was faster. decide returns its argument to change nothing.
func (s *session) update(op string, decide func(*manifest.Manifest) (*manifest.Manifest, error)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.shut {
		return &connectors.Error{Op: op, Kind: connectors.KindInternal, Commit: connectors.CommitNone, Err: errors.New("the session is closed")}
	}
	for range 1000 {
		m, err := s.folder.highest(s.known)
		if err != nil {
			return err
		}
		s.known = m
		next, err := decide(m)
		if err != nil {
			return err
		}
		if next == m {
			return nil
		}
		err = s.folder.publish(next)
		if errors.Is(err, errStale) {
			continue
		}
		if err != nil {
			state := connectors.CommitNone
			if _, ok := errors.AsType[*linkError](err); ok {
				state = connectors.CommitUnknown
			}
			return destError(op, s.folder.path, state, err)
		}
		s.known = next
		return nil
	}
	return destError(op, s.folder.path, connectors.CommitNone, errors.New("another session publishes manifests without pause"))
}

// cause classifies an error of a writer. A younger owner removes the temporary
// files of older ones, so whatever failed, the reason may be that there is one.
func (s *session) cause(op string, r messages.Receipt, err error) error {
	if e, ok := errors.AsType[*connectors.Error](err); ok && e.Commit == connectors.CommitUnknown {
		return err
	}
	m, merr := s.folder.highest(nil)
	if merr == nil && m.Epoch > s.epoch {
		return &connectors.FencedError{Registered: messages.Token{Epoch: m.Epoch}}
	}
	if merr == nil && m.Receipts[r.Part].Token.Compare(r.Token) > 0 {
		return &connectors.FencedError{Registered: m.Receipts[r.Part].Token}
	}
	return destError(op, s.folder.path, connectors.CommitNone, err)
}

// Recovered implements connectors.Session.
func (s *session) Recovered() connectors.Recovered { return s.recovered }

// Begin implements connectors.Session.
func (s *session) Begin(_ context.Context, l connectors.Load) error {
	if err := (&Destination{config: s.config}).checkLoad(l); err != nil {
		return err
	}
	for _, st := range l.Streams {
		if err := s.folder.makeDir(st.Target); err != nil {
			return destError("create the folder of target "+st.Target, path.Join(s.folder.path, st.Target), connectors.CommitNone, err)
		}
	}
	var dropped []manifest.Placed
	err := s.update("begin load "+l.ID.Name, func(m *manifest.Manifest) (next *manifest.Manifest, err error) {
		if m, err = s.intact(m, l); err == nil {
			next, dropped, err = m.Begin(s.epoch, l)
		}
		return next, err
	})
	if err != nil {
		return err
	}
	s.drop(dropped)
	return nil
}

// intact looks for files of l's targets that m lists and that are gone. It refuses a load
// that adds to them, and otherwise returns m without them: whoever starts over must not
// leave a list behind that nobody can read.
func (s *session) intact(m *manifest.Manifest, l connectors.Load) (*manifest.Manifest, error) {
	old := m.Loads[l.ID.Name]
	goesOn := old.Number == l.ID.Number && !old.Finished
	if old.Number == l.ID.Number && old.Finished {
		return m, nil
	}
	for _, st := range l.Streams {
		there, err := s.folder.list(st.Target)
		if err != nil {
			return nil, destError("look at the target "+st.Target, path.Join(s.folder.path, st.Target), connectors.CommitNone, err)
		}
		names := make(map[string]bool, len(there))
		for _, name := range there {
			names[name] = true
		}
		gone := m.Missing(st.Target, names)
		switch {
		case len(gone) == 0 || l.Mode == connectors.ModeReplace && !goesOn:
		case goesOn || l.Adds:
			return nil, s.lostTarget(m, st, gone)
		default:
			m = m.Without(st.Target, gone)
		}
	}
	return m, nil
}

// lostTarget says that data behind receipts is gone: the destination lost it.
func (s *session) lostTarget(m *manifest.Manifest, st connectors.StreamPlan, gone []manifest.File) error {
	r := m.Receipts[gone[0].Part]
	why := fmt.Sprintf("%d of the files that manifest %d of the destination lists are gone: %s", len(gone), m.Number, gone[0].Name)
	if r.Part != "" {
		why = fmt.Sprintf("the destination has task %s at %s; %s", r.Part, r.Reached(), why)
	}
	return &connectors.Error{
		Op: "continue the load", Kind: connectors.KindConfig, Commit: connectors.CommitNone, Code: messages.CodeStateAhead,
		Place: messages.Place{
			Stage: connectors.StageDestination, Stream: st.Stream, Part: r.Part, File: path.Join(s.folder.path, st.Target), Position: r.Position.String(),
		},
		Err: errors.New(why),
	}
}

// OpenWriter implements connectors.Session.
func (s *session) OpenWriter(_ context.Context, p connectors.Part, t messages.Token) (connectors.Writer, messages.Receipt, error) {
	if t.Epoch != s.epoch {
		return nil, messages.Receipt{}, &connectors.Error{
			Op: "open a writer", Kind: connectors.KindInternal, Commit: connectors.CommitNone,
			Err: fmt.Errorf("token of epoch %d in a session of epoch %d", t.Epoch, s.epoch),
		}
	}
	var receipt messages.Receipt
	var load manifest.Load
	err := s.update("open a writer for "+string(p.ID), func(m *manifest.Manifest) (next *manifest.Manifest, err error) {
		next, receipt, err = m.OpenWriter(s.epoch, p, t)
		load = m.Loads[p.Load.Name]
		return next, err
	})
	if err != nil {
		return nil, messages.Receipt{}, err
	}
	s.mu.Lock()
	s.users++
	s.mu.Unlock()
	return newWriter(s, load, receipt), receipt, nil
}

// Finish implements connectors.Session.
func (s *session) Finish(_ context.Context, id messages.LoadID) error {
	var dropped []manifest.Placed
	swapped := false
	err := s.update("finish load "+id.Name, func(m *manifest.Manifest) (next *manifest.Manifest, err error) {
		next, dropped, err = m.Finish(s.epoch, id)
		if swapped = err == nil && next != m && m.Loads[id.Name].Mode == connectors.ModeReplace; swapped {
			err = failpoint.Hit(failpoint.SwapBefore)
		}
		return next, err
	})
	if err != nil {
		return err
	}
	if swapped {
		if err := failpoint.Hit(failpoint.SwapAfter); err != nil {
			return destError("finish load "+id.Name, s.folder.path, connectors.CommitUnknown, err)
		}
	}
	s.drop(dropped)
	return nil
}

// drop removes files that the newest manifest does not refer to any more.
func (s *session) drop(files []manifest.Placed) {
	for _, f := range files {
		s.folder.remove(path.Join(f.Target, f.File.Name))
	}
}

// Close implements connectors.Session.
func (s *session) Close(context.Context) error {
	s.mu.Lock()
	done := s.shut
	s.shut = true
	s.mu.Unlock()
	if done {
		return nil
	}
	return s.leave()
}

// leave gives one use of the root up; the last one closes it, so that a writer
// that is closed after its session still removes its files.
func (s *session) leave() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.users--
	if s.users > 0 {
		return nil
	}
	return s.folder.root.Close()
}
