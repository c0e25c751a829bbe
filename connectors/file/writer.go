package file

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/file/manifest"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/failpoint"
)

// writer writes one part. Its files are temporary until Commit.
type writer struct {
	session *session
	load    manifest.Load
	receipt messages.Receipt // of the last commit
	outputs map[messages.StreamID]*output
	dead    *deadLetters // nil until the first one
	done    []finished   // files of this commit that are full
	columns map[messages.StreamID][]manifest.Column
	counts  messages.Counts // since the last commit
	failed  bool            // only Close is called then
	closed  bool
}

// finished is a file whose bytes are durable under a temporary name.
type finished struct {
	tmp    string
	target string // folder
	ext    string
	file   manifest.File // without its name
	dead   bool
}

func newWriter(s *session, l manifest.Load, r messages.Receipt) *writer {
	return &writer{session: s, load: l, receipt: r, outputs: make(map[messages.StreamID]*output)}
}

// Write implements connectors.Writer.
func (w *writer) Write(_ context.Context, d messages.Data) error {
	err := w.write(d)
	if err != nil {
		w.failed = true
		return w.session.cause("write to the destination", w.receipt, err)
	}
	return nil
}

func (w *writer) write(d messages.Data) error {
	switch d := d.(type) {
	case messages.Batch:
		defer d.Rows.Release()
		return w.batch(d)
	case messages.Rejected:
		defer d.Rows.Release()
		return w.reject(d)
	case messages.SchemaChange:
		return w.schemaChange(d)
	case messages.Truncate:
		return refused("truncate", messages.CodeNotAvailable, messages.Place{}, "", errors.New("the file destination cannot empty a target in the middle of a load"))
	}
	panic("file: data of an unknown kind")
}

func (w *writer) batch(b messages.Batch) error {
	rows, ok := b.Rows.(messages.ArrowRows)
	if !ok {
		return &connectors.Error{Op: "write a batch", Kind: connectors.KindInternal, Err: fmt.Errorf("rows are %T, want Arrow", b.Rows)}
	}
	if w.failed || w.closed {
		return &connectors.Error{Op: "write a batch", Kind: connectors.KindInternal, Err: errors.New("the writer has failed or is closed")}
	}
	if slices.ContainsFunc(rows.Record.Schema().Fields(), isReserved) {
		return refused("write a batch", messages.CodeNotAvailable, messages.Place{Stream: b.Stream}, "",
			errors.New("files take plain rows, not the updates and deletes of a change log"))
	}
	out, err := w.output(b.Stream)
	if err != nil {
		return err
	}
	full, err := out.write(rows.Record)
	w.done = append(w.done, full...)
	if err != nil {
		return err
	}
	w.counts.Arrived += rows.Len()
	w.counts.Applied += rows.Len()
	return nil
}

func (w *writer) output(s messages.StreamID) (*output, error) {
	if out, ok := w.outputs[s]; ok {
		return out, nil
	}
	plan, ok := w.load.Streams[s]
	if !ok {
		return nil, &connectors.Error{Op: "write a batch", Kind: connectors.KindInternal, Err: fmt.Errorf("stream %s is not of load %s", s, w.receipt.Load)}
	}
	out := newOutput(w.session.folder, w.session.config, s, plan.Target, w.receipt)
	w.outputs[s] = out
	return out, nil
}

// reject keeps rows that a transform set aside; they are listed by the commit
// that covers them.
func (w *writer) reject(r messages.Rejected) error {
	rows, ok := r.Rows.(messages.ArrowRows)
	if !ok {
		return &connectors.Error{Op: "write dead letters", Kind: connectors.KindInternal, Err: fmt.Errorf("rows are %T, want Arrow", r.Rows)}
	}
	if w.dead == nil {
		if err := w.session.folder.makeDir(w.session.folder.deadDir()); err != nil {
			return err
		}
		w.dead = newDeadLetters(w.session.folder, w.receipt)
	}
	if err := w.dead.write(r.Stream, r.Reason, rows.Record); err != nil {
		return err
	}
	w.counts.Arrived += rows.Len()
	w.counts.Rejected += rows.Len()
	return nil
}

// schemaChange closes the current file: a file has one schema.
func (w *writer) schemaChange(c messages.SchemaChange) error {
	out, err := w.output(c.Stream)
	if err != nil {
		return err
	}
	if err := checkSchema(w.session.config.Format, c.Stream, c.Schema); err != nil {
		return err
	}
	plan := w.load.Streams[c.Stream]
	cols := manifest.Columns(c.Schema)
	if err := manifest.CheckTypes(connectors.StreamPlan{Stream: c.Stream, Target: plan.Target}, plan.Columns, cols); err != nil {
		return err
	}
	if w.columns == nil {
		w.columns = make(map[messages.StreamID][]manifest.Column)
	}
	w.columns[c.Stream] = cols
	full, err := out.roll()
	w.done = append(w.done, full...)
	return err
}

// Commit implements connectors.Writer.
func (w *writer) Commit(_ context.Context, b messages.Barrier) (messages.Receipt, error) {
	if w.failed || w.closed {
		return messages.Receipt{}, &connectors.Error{
			Op: "commit", Kind: connectors.KindInternal, Commit: connectors.CommitNone, Err: errors.New("the writer has failed or is closed"),
		}
	}
	next := w.receipt
	next.Version.Commit++
	next.Position = b.Position
	next.Final = b.Kind == messages.BarrierEnd
	next.Rows.Read += b.Rows
	next.Rows.Arrived += w.counts.Arrived
	next.Rows.Applied += w.counts.Applied
	next.Rows.Rejected += w.counts.Rejected

	placed, err := w.place(next)
	if err == nil {
		err = w.publish(next, placed)
	}
	if err != nil {
		w.failed = true
		return messages.Receipt{}, w.session.cause("commit "+string(w.receipt.Part), w.receipt, err)
	}
	w.receipt, w.done, w.columns, w.counts = next, nil, nil, messages.Counts{}
	w.outputs = make(map[messages.StreamID]*output) // their files carry the receipt's commit
	w.dead = nil
	return next, nil
}

// place makes every file of this commit durable under its final name, where no
// reader looks for it yet.
func (w *writer) place(next messages.Receipt) ([]finished, error) {
	for _, out := range w.outputs {
		full, err := out.roll()
		w.done = append(w.done, full...)
		if err != nil {
			return nil, err
		}
	}
	if w.dead != nil {
		f, err := w.dead.finish()
		if err != nil {
			return nil, err
		}
		w.done = append(w.done, f)
		if err := failpoint.Hit(failpoint.DeadLettered); err != nil {
			return nil, err
		}
	}
	var dirs []string
	for i := range w.done {
		f := &w.done[i]
		f.file.Name = dataName(w.session.folder.pipeline, next, i, f.file.SHA256, f.ext)
		if err := w.session.folder.place(f.tmp, f.target, f.file.Name); err != nil {
			w.removePlaced(w.done[:i+1]) // also the last: it may have been moved before the error
			return nil, err
		}
		if !slices.Contains(dirs, f.target) {
			dirs = append(dirs, f.target)
		}
	}
	for _, dir := range dirs {
		if err := w.session.folder.syncTarget(dir); err != nil {
			w.removePlaced(w.done)
			return nil, err
		}
	}
	return w.done, nil
}

// publish lists the files and the receipt in one manifest. Files stay where they
// are when it is not certain that they are not listed.
func (w *writer) publish(next messages.Receipt, placed []finished) error {
	c := manifest.Commit{From: w.receipt, Next: next, Columns: w.columns}
	for _, f := range placed {
		if f.dead {
			c.Dead = append(c.Dead, f.file)
			continue
		}
		c.Files = append(c.Files, manifest.Placed{Target: f.target, File: f.file})
	}
	err := failpoint.Hit(failpoint.DestCopyAfter)
	if err == nil {
		err = w.session.update("commit "+string(w.receipt.Part), func(m *manifest.Manifest) (*manifest.Manifest, error) {
			return m.Commit(w.session.epoch, c)
		})
	}
	if err == nil {
		if err := failpoint.Hit(failpoint.DestCommitted); err != nil {
			return destError("commit "+string(w.receipt.Part), w.session.folder.path, connectors.CommitUnknown, err)
		}
		return nil
	}
	if e, ok := errors.AsType[*connectors.Error](err); !ok || e.Commit != connectors.CommitUnknown {
		w.removePlaced(placed)
	}
	return err
}

// removePlaced removes files of a commit that did not happen, as far as this writer
// knows: what the newest manifest lists stays, and all of it when that cannot be read.
// What is left over is swept by the next owner.
func (w *writer) removePlaced(files []finished) {
	m, err := w.session.folder.highest(nil)
	if err != nil {
		return
	}
	for _, f := range files {
		if !m.Lists(f.target, f.file.Name) {
			w.session.folder.remove(path.Join(f.target, f.file.Name))
		}
	}
}

// Close implements connectors.Writer.
func (w *writer) Close(context.Context) error {
	if w.closed {
		return nil
	}
	w.closed = true
	for _, out := range w.outputs {
		out.abort()
	}
	if w.dead != nil {
		w.dead.abort()
	}
	for _, f := range w.done {
		w.session.folder.remove(f.tmp)
	}
	return w.session.leave()
}
