package run

import (
	"fmt"
	"maps"
	"slices"
	"time"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// progress keeps the figures of a run: what the summary, the events and the stall
// deadline need. It decides nothing about data.
type progress struct {
	cfg     Config
	parts   map[messages.PartID]*partProgress
	streams []messages.StreamID
	total   map[messages.StreamID]int64 // rows expected
	shown   map[messages.StreamID]messages.Event
	told    map[messages.StreamID][]string // what was explained: tasks of one stream decide alike
}

type partProgress struct {
	stream  messages.StreamID
	load    messages.LoadID
	begun   bool             // base is known
	base    messages.Receipt // as this run found it
	receipt messages.Receipt // the newest persisted, or as found
	done    bool             // the final receipt exists; if found so, it is persisted soon
	bytes   int64            // of attempts that are over
	retries int
	token   messages.Token
	stages  []messages.StageStatus // of the running attempt, source first
	lane    Lane                   // as planned, then of the newest attempt
	opened  bool                   // there was one
	moved   time.Time              // when a figure of the attempt last changed
}

func newProgress(cfg Config) *progress {
	return &progress{
		cfg: cfg, parts: map[messages.PartID]*partProgress{},
		total: map[messages.StreamID]int64{}, shown: map[messages.StreamID]messages.Event{}, told: map[messages.StreamID][]string{},
	}
}

func (p *progress) send(e messages.Event) {
	if p.cfg.Observe == nil {
		return
	}
	e.Time, e.Pipeline, e.Run = time.Now(), p.cfg.Spec.Pipeline, p.cfg.Run.ID
	p.cfg.Observe(e)
}

func (p *progress) plan(l planned, known connectors.Recovered) {
	p.streams = append(p.streams, l.stream)
	for _, s := range l.reads {
		p.total[l.stream] += s.Rows
	}
	var parts int64
	for _, part := range l.load.Parts {
		parts += part.Rows
		pp := &partProgress{stream: l.stream, load: l.load.ID, lane: l.lane}
		for _, r := range known.Receipts {
			if r.Part == part.ID && r.LoadID() == l.load.ID {
				pp.begun, pp.base, pp.receipt, pp.done = true, r, r, r.Final
			}
		}
		p.parts[part.ID] = pp
	}
	if parts > 0 {
		p.total[l.stream] = parts
	}
	p.send(messages.Event{Kind: messages.EventStreamPlanned, Stream: l.stream, Total: p.total[l.stream], Tasks: len(l.load.Parts)})
}

func (p *progress) streamOf(id messages.PartID) messages.StreamID {
	if pp := p.parts[id]; pp != nil {
		return pp.stream
	}
	return ""
}

func (p *progress) started(id messages.PartID, k messages.Token) {
	if pp := p.parts[id]; pp != nil {
		pp.closeAttempt()
		pp.token, pp.moved = k, time.Now()
	}
}

// closeAttempt keeps what the attempt has read.
func (pp *partProgress) closeAttempt() {
	for _, s := range pp.stages {
		if s.Stage == connectors.StageSource {
			pp.bytes += s.Bytes
		}
	}
	pp.stages = nil
}

func (p *progress) opened(m messages.Opened) {
	pp := p.parts[m.Receipt.Part]
	if pp == nil {
		return
	}
	if !pp.begun {
		pp.begun, pp.base = true, m.Receipt
	}
	pp.opened = true
	switch {
	case m.Raw != "":
		pp.lane = Lane{Lane: messages.LanePassthrough, Raw: m.Raw}
	case m.Why != "" || pp.lane.Raw != "":
		pp.lane = Lane{Lane: messages.LaneArrow, Reason: m.Why}
	}
	if pp.lane.Known() {
		p.note(pp, m.Receipt.Part, m.Token, fmt.Sprintf("stream %s: %s", pp.stream, pp.lane))
	}
	if m.Receipt.Version.Compare(pp.receipt.Version) >= 0 {
		pp.receipt = m.Receipt // how an unknown COMMIT ended
	}
}

func (p *progress) persisted(r messages.Receipt) {
	pp := p.parts[r.Part]
	if pp == nil || r.Version.Compare(pp.receipt.Version) < 0 {
		return // of an attempt before the one that has opened since
	}
	pp.receipt, pp.moved = r, time.Now()
	p.send(messages.Event{
		Kind: messages.EventCheckpoint, Stream: pp.stream, Part: r.Part, Token: r.Token,
		RowsRead: r.Rows.Read - pp.base.Rows.Read, RowsWritten: r.Rows.Applied - pp.base.Rows.Applied,
		Rejected: r.Rows.Rejected - pp.base.Rows.Rejected,
		Position: r.Position.At.String(),
	})
}

// explained shows what the destination of a task has decided, once per stream.
func (p *progress) explained(m messages.Explained) {
	pp := p.parts[m.Part]
	if pp == nil || pp.token != m.Token {
		return
	}
	for _, line := range m.Lines {
		p.note(pp, m.Part, m.Token, line)
	}
}

// note shows a line once per stream.
func (p *progress) note(pp *partProgress, part messages.PartID, k messages.Token, line string) {
	if !slices.Contains(p.told[pp.stream], line) {
		p.told[pp.stream] = append(p.told[pp.stream], line)
		p.send(messages.Event{Kind: messages.EventNote, Stream: pp.stream, Part: part, Token: k, Message: line})
	}
}

func (p *progress) final(id messages.PartID, of messages.LoadID) {
	if pp := p.parts[id]; pp != nil && pp.load == of {
		pp.done = true
	}
}

func (p *progress) retried(id messages.PartID) {
	if pp := p.parts[id]; pp != nil {
		pp.retries++
	}
}

// complete reports whether every part of a load is final.
func (p *progress) complete(l connectors.Load) bool {
	return !slices.ContainsFunc(l.Parts, func(part connectors.Part) bool { return !p.parts[part.ID].done })
}

func (p *progress) status(m messages.StageStatus) {
	pp := p.parts[m.Part]
	if pp == nil || pp.token != m.Token {
		return
	}
	for i, s := range pp.stages {
		if s.Stage == m.Stage {
			if s != m {
				pp.moved = time.Now()
			}
			pp.stages[i] = m
			return
		}
	}
	pp.stages = append(pp.stages, m)
	pp.moved = time.Now()
}

// waiting names the stage that holds the task up.
func (pp *partProgress) waiting() string {
	for _, stage := range []string{connectors.StageDestination, connectors.StageTransform, connectors.StageSource} {
		for _, s := range pp.stages {
			if s.Stage == stage && s.Doing != "waiting for data" {
				return s.Stage + ": " + s.Doing
			}
		}
	}
	return ""
}

// stalled returns a failure for every attempt without progress for longer than the
// limit: nothing waits for ever.
func (p *progress) stalled(limit time.Duration) []messages.StageFailed {
	if limit <= 0 {
		return nil
	}
	var out []messages.StageFailed
	for _, id := range slices.Sorted(maps.Keys(p.parts)) {
		pp := p.parts[id]
		if pp.token == (messages.Token{}) || pp.done || time.Since(pp.moved) < limit {
			continue
		}
		info, _ := messages.CodeStalled.Info()
		out = append(out, messages.StageFailed{Part: id, Token: pp.token, Stage: connectors.StageRun, Failure: messages.Failure{
			Code: messages.CodeStalled, Kind: string(connectors.KindTransient), What: fmt.Sprintf("no progress for %s", limit),
			Where: messages.Place{Pipeline: p.cfg.Spec.Pipeline, Stream: pp.stream, Part: id}, Why: pp.waiting(), Next: info.Next,
		}})
	}
	return out
}

const stallShown = 3 * time.Second // without progress: then the cause is shown

// report sends one event per stream whose figures changed. It looks at each part once:
// there may be thousands of both.
func (p *progress) report() {
	now := time.Now()
	events := make(map[messages.StreamID]messages.Event, len(p.streams))
	slowest := map[messages.StreamID]time.Duration{}
	for _, pp := range p.parts {
		e := events[pp.stream]
		e.RowsRead += pp.rowsRead()
		e.RowsWritten += pp.receipt.Rows.Applied - pp.base.Rows.Applied
		e.Bytes += pp.read()
		if idle := now.Sub(pp.moved); len(pp.stages) > 0 && !pp.done && idle > max(slowest[pp.stream], stallShown) {
			slowest[pp.stream], e.Waiting = idle, pp.waiting()
		}
		events[pp.stream] = e
	}
	for _, s := range p.streams {
		e := events[s]
		e.Kind, e.Stream, e.Total = messages.EventProgress, s, p.total[s]
		if e != p.shown[s] {
			p.shown[s] = e
			p.send(e)
		}
	}
}

// rowsRead is what is committed and what the running attempt has in flight.
func (pp *partProgress) rowsRead() int64 {
	n := pp.receipt.Rows.Read - pp.base.Rows.Read
	for _, s := range pp.stages {
		if s.Stage == connectors.StageSource {
			n = max(n, s.Rows)
		}
	}
	return n
}

func (pp *partProgress) read() int64 {
	n := pp.bytes
	for _, s := range pp.stages {
		if s.Stage == connectors.StageSource {
			n += s.Bytes
		}
	}
	return n
}

// result sums up one load.
func (p *progress) result(l *loadRun) messages.StreamResult {
	r := messages.StreamResult{Stream: l.stream, Tasks: len(l.load.Parts), Failure: l.failure}
	if len(l.load.Streams) == 1 {
		r.Target = l.load.Streams[0].Target
	}
	r.How = p.told[l.stream]
	for _, part := range l.load.Parts {
		pp := p.parts[part.ID]
		r.RowsRead += pp.receipt.Rows.Read - pp.base.Rows.Read
		r.RowsWritten += pp.receipt.Rows.Applied - pp.base.Rows.Applied
		r.RowsRejected += pp.receipt.Rows.Rejected - pp.base.Rows.Rejected
		r.Bytes += pp.read()
		r.Retries += pp.retries
		if pp.opened && r.Lane != messages.LaneArrow {
			r.Lane, r.LaneReason = pp.lane.Lane, pp.lane.Reason
		}
		if at := pp.receipt.Position.At; len(l.load.Parts) == 1 && !at.IsZero() {
			r.Cursor = &at
		}
	}
	switch l.state {
	case loadDone:
		r.State = messages.RunCompleted
	case loadFailed:
		r.State = messages.RunFailed
	case loadOpen:
		r.State = messages.RunDrained
	}
	return r
}
