package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math"
	"runtime/debug"
	"time"

	"github.com/spf13/cobra"

	"rapidbyte.io/node/actors/run"
	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/config"
	"rapidbyte.io/node/runtime/node"
	"rapidbyte.io/node/runtime/plugin"
	"rapidbyte.io/node/statestore"
)

// heapFixed is what the heap holds beside the batches in flight.
const heapFixed = 64 << 20

// runFlags are the flags of run.
type runFlags struct {
	streams     []string
	fullRefresh bool
	rebuild     bool
	events      string
	profile     string                                        // folder; empty: none
	guard       func(context.Context, statestore.Store) error // nil, or what may forbid the run
}

const runLong = `run moves the data of a pipeline and resumes where the last run stopped.

The first SIGINT or SIGTERM drains: the run stops at the next committed position,
within 10 seconds, with exit code 7. The second one stops at once, which is safe too:
what is committed has a receipt, and running again resumes behind it.

--profile samples where the run spends its time, for ` + "`go tool pprof`" + `: each run leaves
run-TIME-PID.cpu.pprof, .heap., .goroutine., .mutex. and .block.pprof, however it ends.`

func (a *app) runCommand() *cobra.Command {
	var o runFlags
	cmd := &cobra.Command{
		Use: "run DOCUMENT", Short: "Move the data", Long: runLong, Annotations: withExitCodes, Args: oneDocument, ValidArgsFunction: documents,
		Example: "  rapidbyte-node run pipeline.yaml\n  rapidbyte-node run pipeline.yaml --stream orders --full-refresh",
		RunE: func(cmd *cobra.Command, args []string) error {
			out := profiled(o.profile, cmd.Name(), func() outcome { return a.run(cmd.Context(), args[0], o) })
			a.out = &out
			return nil
		},
	}
	cmd.Flags().StringArrayVar(&o.streams, "stream", nil, "only this `stream`; may be repeated")
	o.add(cmd)
	_ = cmd.RegisterFlagCompletionFunc("stream", a.completeStreams)
	return cmd
}

// add defines the flags that run and copy share.
func (o *runFlags) add(cmd *cobra.Command) {
	f := cmd.Flags()
	f.BoolVar(&o.fullRefresh, "full-refresh", false, "begin new loads and forget what earlier ones read")
	f.BoolVar(&o.rebuild, "rebuild-state", false, "rebuild a lost or damaged state store from the destination's receipts")
	f.StringVar(&o.events, "events", "", "write the events as NDJSON to this `file`; - is stdout")
	f.StringVar(&o.profile, "profile", "", "write CPU, heap, goroutine, mutex and block profiles to this `folder`")
}

// completeStreams completes the names that the document gives.
func (a *app) completeStreams(_ *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	var out []string
	if len(args) > 0 {
		if doc, err := a.load(args[0]); err == nil {
			for _, s := range doc.Source.Streams {
				out = append(out, s.Name)
			}
		}
	}
	return out, cobra.ShellCompDirectiveNoFileComp
}

// load reads the document; "-" is stdin.
func (a *app) load(path string) (*config.Document, error) {
	env := config.OS()
	env.LookupEnv = a.env
	if path != "-" {
		return config.Load(path, plugin.Builtins(), env)
	}
	text, err := io.ReadAll(io.LimitReader(a.stdin, documentMax+1)) // one byte over is enough to be refused
	if err != nil {
		return nil, config.Problems{{
			Code: messages.CodeDocRead, Kind: string(connectors.KindConfig), Where: messages.Place{File: "stdin"},
			What: "the document cannot be read: " + err.Error(),
		}}
	}
	return config.Parse("stdin", text, plugin.Builtins(), env)
}

// documentMax is what config.Parse accepts, in bytes.
const documentMax = 8 << 20

// run moves the data.
func (a *app) run(ctx context.Context, path string, o runFlags) outcome {
	stop := a.watch(ctx)
	defer stop.close()
	doc, err := a.load(path)
	if err != nil {
		return failed(err)
	}
	return a.runDocument(doc, path, o, stop)
}

// runDocument moves the data of doc. path is where it was read, empty for one that was
// made up.
func (a *app) runDocument(doc *config.Document, path string, o runFlags, stop *stopper) outcome {
	return a.moveDocument(doc, path, o, stop).about(path)
}

func (a *app) moveDocument(doc *config.Document, path string, o runFlags, stop *stopper) outcome {
	if err := a.probeReport(); err != nil {
		return failed(err)
	}
	a.limitMemory(int64(doc.Resources.MaxMemory))
	spec, err := node.Build(stop.ctx, doc, node.BuildOptions{Streams: o.streams, FullRefresh: o.fullRefresh, Adopt: o.rebuild})
	if err != nil && path == "" {
		err = plainly(err)
	}
	if err != nil {
		return stop.failed(err)
	}
	rec, err := a.openEvents(o.events)
	if err != nil {
		return failed(err)
	}
	store, err := node.OpenStore(stop.ctx, doc, o.rebuild)
	if err != nil {
		return stop.failed(errors.Join(err, rec.close()))
	}
	if o.rebuild {
		if _, err := node.Rebuild(stop.ctx, spec, store); err != nil {
			return stop.failed(errors.Join(err, store.Close(), rec.close()))
		}
	}
	if o.guard != nil {
		if err := o.guard(stop.ctx, store); err != nil {
			return stop.failed(errors.Join(err, store.Close(), rec.close()))
		}
	}
	job := &job{app: a, spec: spec, store: store, stop: stop, story: newStory()}
	result := job.move(rec)
	out := a.runOutcome(path, doc, spec, result, job.story, stop)
	if err := rec.close(); err != nil {
		list, _ := failuresOf(err)
		out.failures = append(out.failures, list...)
	}
	return out
}

// failed is the outcome of an error before anything moved: a signal explains it
// better than what it interrupted.
func (s *stopper) failed(err error) outcome {
	if s.ctx.Err() != nil {
		return failed(context.Canceled)
	}
	return failed(err)
}

// limitMemory sets the soft limit of the heap; see the package comment.
func (a *app) limitMemory(maxMemory int64) {
	if v, ok := a.env("GOMEMLIMIT"); ok && v != "" {
		return
	}
	if maxMemory < math.MaxInt64-heapFixed {
		debug.SetMemoryLimit(maxMemory + heapFixed)
	}
}

// job is one run in its node.
type job struct {
	app   *app
	spec  run.Spec
	store statestore.Store
	stop  *stopper
	story *story // complete when move has returned
}

// move runs the pipeline to its end, or until nobody should wait any longer.
func (j *job) move(rec *recorder) messages.RunResult {
	v := j.app.view()
	sinks := []func(messages.Event){j.story.event, v.event}
	if rec != nil {
		sinks = append(sinks, rec.event)
	}
	f := newFeed(sinks...)
	began := time.Now()
	done := make(chan messages.RunResult, 1) // read or not, the goroutine ends
	go func() { done <- j.drive(v, f.observe) }()
	result := j.wait(done, began)
	finished := make(chan struct{})
	go func() { // a terminal that takes nothing any more must not hold a stopped run
		defer close(finished)
		f.close()
		v.close()
	}()
	select {
	case <-finished:
	case <-j.stop.gaveUp:
	}
	return result
}

// drive runs the pipeline in a node of its own and closes everything behind it.
func (j *job) drive(log io.Writer, observe func(messages.Event)) (r messages.RunResult) {
	defer func() {
		if reason := recover(); reason != nil {
			f := panicked(reason).failures[0]
			r = messages.RunResult{Pipeline: j.spec.Pipeline, State: messages.RunFailed, Failure: &f}
		}
		if err := j.store.Close(); err != nil {
			r.Warnings = append(r.Warnings, "the state store did not close cleanly: "+err.Error())
		}
	}()
	n := node.Start(node.Options{Logger: j.app.logger(log), Observe: observe})
	defer n.Stop()
	j.stop.draining(n.Drain)
	return n.Run(j.stop.ctx, j.spec, j.store)
}

// wait returns how the run ended, or what is known of it when its time is up.
func (j *job) wait(done <-chan messages.RunResult, began time.Time) messages.RunResult {
	select {
	case r := <-done:
		return r
	case <-j.stop.gaveUp:
		return messages.RunResult{
			Pipeline: j.spec.Pipeline, State: messages.RunDrained, Elapsed: time.Since(began),
			Warnings: []string{"a stage did not stop in time and was left behind"},
		}
	}
}

// view returns what shows the run.
func (a *app) view() view {
	l := a.look(a.stderr)
	switch {
	case a.flags.quiet:
		return newLines(io.Discard, l, 0)
	case l.tty && l.color && a.flags.output != outputPlain && !a.eventsOnTerminal():
		return newBars(a.stderr, l, a.flags.verbose)
	}
	return newLines(a.stderr, l, a.flags.verbose)
}

// eventsOnTerminal reports whether the events scroll through the same screen.
func (a *app) eventsOnTerminal() bool { return a.toStderr && a.look(a.stdout).tty }

// logger returns the log of the engine's inside: warnings with -v, all with -vv.
func (a *app) logger(w io.Writer) *slog.Logger {
	level := slog.LevelWarn
	switch {
	case a.flags.verbose == 0:
		return nil
	case a.flags.verbose > 1:
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
}

// runResult is the result of run in the envelope.
type runResult struct {
	RunID     string                  `json:"run_id"`
	Pipeline  messages.PipelineID     `json:"pipeline"`
	Epoch     messages.Epoch          `json:"epoch"`
	State     messages.RunState       `json:"state"`
	ElapsedMS int64                   `json:"elapsed_ms"`
	Streams   []messages.StreamResult `json:"streams"`
	Warnings  []string                `json:"warnings,omitempty"`
	Tuning    []messages.Decision     `json:"tuning,omitempty"`
	Store     string                  `json:"state_store"`
}

// runOutcome turns the end of a run into what is said about it.
func (a *app) runOutcome(path string, doc *config.Document, spec run.Spec, r messages.RunResult, st *story, stop *stopper) outcome {
	complete(&r, spec, st)
	res := runResult{
		RunID: r.RunID, Pipeline: r.Pipeline, Epoch: r.Epoch, State: r.State, ElapsedMS: r.Elapsed.Milliseconds(),
		Streams: r.Streams, Warnings: r.Warnings, Tuning: r.Decisions, Store: node.StorePath(doc),
	}
	if res.Streams == nil {
		res.Streams = []messages.StreamResult{}
	}
	s := summary{result: res, elapsed: r.Elapsed, story: st, policy: doc.Destination.OnDataError, path: path}
	out := outcome{summary: s.line(), result: res, human: s.text}
	if a.flags.quiet {
		out.human = nil
	}
	switch r.State {
	case messages.RunCompleted:
	case messages.RunDrained:
		out.failures = []messages.Failure{drained(res, stop.signals())}
	case messages.RunFailed, messages.RunRunning:
		out.failures = causes(r)
	}
	return out
}

// complete adds what the result does not say: the figures of a run that was left
// behind, and the streams that had nothing new.
func complete(r *messages.RunResult, spec run.Spec, st *story) {
	if r.RunID == "" {
		r.RunID = st.run
	}
	known := map[messages.StreamID]bool{}
	for _, s := range r.Streams {
		known[s.Stream] = true
	}
	for _, s := range spec.Streams {
		m := st.streams[s.Stream]
		switch {
		case known[s.Stream]:
		case r.State == messages.RunCompleted:
			r.Streams = append(r.Streams, messages.StreamResult{Stream: s.Stream, Target: s.Target, State: r.State})
		case m != nil && !m.started.IsZero():
			r.Streams = append(r.Streams, messages.StreamResult{
				Stream: s.Stream, Target: s.Target, State: r.State, Tasks: m.tasks,
				RowsRead: m.written, RowsWritten: m.written, Bytes: m.bytes,
			})
		}
	}
}

// drained says that a run stopped on request, what is safe and how it goes on.
func drained(r runResult, signals []string) messages.Failure {
	info, _ := messages.CodeCancelled.Info()
	var rows int64
	for _, s := range r.Streams {
		rows += s.RowsWritten
	}
	f := messages.Failure{
		Code: info.Code, Where: messages.Place{Pipeline: r.Pipeline}, Next: info.Next,
		What: fmt.Sprintf("the run stopped at a committed position; %s of this run are committed", count(rows, "row")),
	}
	switch len(signals) {
	case 0:
	case 1:
		f.Why = signals[0]
	default:
		f.Why = signals[0] + ", then " + signals[1] + ": stopped at once"
		f.What = fmt.Sprintf("the run was stopped; %s of this run are committed", count(rows, "row"))
	}
	return f
}

// causes lists why a run failed: the first cause, then that of each other stream.
func causes(r messages.RunResult) []messages.Failure {
	var out []messages.Failure
	if r.Failure != nil {
		out = append(out, *r.Failure)
	}
	for _, s := range r.Streams {
		if s.Failure != nil && (r.Failure == nil || *s.Failure != *r.Failure) {
			out = append(out, *s.Failure)
		}
	}
	if len(out) == 0 {
		info, _ := messages.CodeInternal.Info()
		out = append(out, messages.Failure{Code: info.Code, What: "the run failed without a cause", Next: info.Next})
	}
	return out
}
