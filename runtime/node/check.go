package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"rapidbyte.io/node/actors/run"
	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/config"
	"rapidbyte.io/node/statestore"
	"rapidbyte.io/node/statestore/postgres"
)

// Report is what Check found. The run would fail if it has an error.
type Report struct {
	Findings []connectors.Finding `json:"findings"`
	Streams  []StreamReport       `json:"streams"`
}

// StreamReport is how one stream would be moved.
type StreamReport struct {
	Stream   messages.StreamID    `json:"name"`
	Target   string               `json:"target"`
	Mode     connectors.WriteMode `json:"write_mode"`
	Columns  []Column             `json:"columns"` // as they arrive at the destination
	Key      []string             `json:"key,omitempty"`
	Estimate int64                `json:"rows_estimate,omitempty"`
	Tasks    int                  `json:"tasks"`
	Lane     messages.Lane        `json:"lane,omitempty"`        // empty: a run would fail
	Reason   string               `json:"lane_reason,omitempty"` // of arrow, where both ends have another one
	How      string               `json:"-"`                     // the lane, for a person; empty: there is no other
}

// Column is one column of a stream.
type Column struct {
	Name     string `json:"name"`
	Type     string `json:"type"`
	Nullable bool   `json:"nullable"`
}

// Failed returns the first error, if there is one.
func (r Report) Failed() (connectors.Finding, bool) {
	for _, f := range r.Findings {
		if f.Severity == connectors.SeverityError {
			return f, true
		}
	}
	return connectors.Finding{}, false
}

// Check looks at everything a run of spec needs: connectivity, permissions, schema
// fit, state store. It changes nothing, so it plans as if nothing had been loaded yet.
func Check(ctx context.Context, spec run.Spec, doc *config.Document) Report {
	var r Report
	r.state(ctx, doc)
	found, err := spec.Source.Check(ctx, spec.Specs())
	r.Findings = append(r.Findings, found...)
	if err != nil {
		r.fail(err, connectors.StageSource)
	}
	if _, failed := r.Failed(); failed {
		return r
	}
	r.warnCopies(spec)
	scan, err := spec.Source.Scan(ctx, connectors.ScanRequest{
		Pipeline: spec.Pipeline, Streams: spec.Specs(), Splits: spec.Resources.Tasks, Preview: true,
	})
	if err != nil {
		r.fail(err, connectors.StageSource)
		return r
	}
	p := scan.Plan()
	_ = scan.Close(ctx) // a preview holds nothing
	r.Findings = append(r.Findings, p.Warnings...)
	loads, _, err := spec.Plan(p, connectors.Recovered{})
	if err != nil {
		r.fail(err, connectors.StageTransform)
		return r
	}
	for _, l := range p.Loads {
		for _, s := range l.Streams {
			r.advice(spec, s)
		}
	}
	found, err = spec.Destination.Check(ctx, loads)
	r.Findings = append(r.Findings, found...)
	if err != nil {
		r.fail(err, connectors.StageDestination)
	}
	r.streams(ctx, spec, loads)
	return r
}

func (r *Report) fail(err error, stage string) {
	f := connectors.FailureOf(err, messages.Place{Stage: stage})
	message := f.What
	if f.Why != "" {
		message += ": " + f.Why
	}
	r.Findings = append(r.Findings, connectors.Finding{
		Severity: connectors.SeverityError, Code: f.Code, Message: message, Where: f.Where, Remedy: f.Next,
	})
}

// advice collects what the transforms of a stream have to say. Their schemas fit, or
// the plan would have failed.
func (r *Report) advice(spec run.Spec, s connectors.StreamPlan) {
	for _, t := range spec.Transforms {
		if !slices.Contains(t.Streams, s.Stream) {
			continue
		}
		if a, ok := t.Transform.(connectors.Advisor); ok {
			found, err := a.Findings(s.Stream, s.Schema)
			if err != nil {
				r.fail(err, connectors.StageTransform)
			}
			r.Findings = append(r.Findings, found...)
		}
		out, err := t.Schema(s.Stream, s.Schema)
		if err != nil {
			r.fail(err, connectors.StageTransform)
			return
		}
		s.Schema = out
	}
}

// streams says how each stream would be moved. The destination is asked only where a run
// would begin.
func (r *Report) streams(ctx context.Context, spec run.Spec, loads []connectors.Load) {
	var lanes []run.Lane
	if _, failed := r.Failed(); !failed {
		var err error
		if lanes, err = spec.Lanes(ctx, loads); err != nil {
			r.fail(err, connectors.StageDestination)
		}
	}
	for i, l := range loads {
		for _, s := range l.Streams {
			sr := StreamReport{Stream: s.Stream, Target: s.Target, Mode: l.Mode, Key: s.Key, Estimate: s.Rows, Tasks: len(l.Parts)}
			if lanes != nil {
				sr.Lane, sr.Reason = lanes[i].Lane, lanes[i].Reason
				if lanes[i].Known() {
					sr.How = lanes[i].String()
				}
			}
			for _, f := range s.Schema.Fields() {
				sr.Columns = append(sr.Columns, Column{Name: f.Name, Type: f.Type.String(), Nullable: f.Nullable})
			}
			r.Streams = append(r.Streams, sr)
		}
	}
}

// warnCopies says which streams would be appended a second time by a second run.
func (r *Report) warnCopies(spec run.Spec) {
	if m, ok := spec.Source.(connectors.Rememberer); ok && m.Remembers() {
		return
	}
	for _, s := range spec.Streams {
		if s.Sync == connectors.SyncFullRefresh && s.Mode == connectors.ModeAppend {
			r.Findings = append(r.Findings, connectors.Finding{
				Severity: connectors.SeverityWarning, Where: messages.Place{Stream: s.Stream},
				Message: fmt.Sprintf("every completed run appends all rows of %s again", s.Stream),
				Remedy:  "Use write_mode replace or upsert, or sync_mode incremental, unless that is wanted.",
			})
		}
	}
}

// state looks whether the state store could be opened, without opening it.
func (r *Report) state(ctx context.Context, doc *config.Document) {
	var err error
	if doc.State.Backend == config.BackendPostgres {
		err = postgres.Probe(ctx, doc.State.Connection.Reveal())
	} else if err = probeFolder(filepath.Dir(doc.State.Path())); err != nil {
		err = fmt.Errorf("the state store cannot be created: %w", err)
	}
	if err == nil {
		return
	}
	code := statestore.CodeOf(err)
	info, _ := code.Info()
	if errors.Is(err, statestore.ErrAddress) {
		info.Next = correctConnection
	}
	r.Findings = append(r.Findings, connectors.Finding{
		Severity: connectors.SeverityError, Code: code, Where: doc.Place("state.connection"), Message: err.Error(), Remedy: info.Next,
	})
}

// probeFolder looks whether a folder is there or could be made.
func probeFolder(dir string) error {
	for {
		info, err := os.Stat(dir)
		if err == nil && !info.IsDir() {
			return fmt.Errorf("%s is not a folder", dir)
		}
		parent := filepath.Dir(dir)
		if err == nil || !os.IsNotExist(err) || parent == dir {
			return err
		}
		dir = parent
	}
}

// Discover lists what the document's source has.
func Discover(ctx context.Context, spec run.Spec) ([]connectors.Discovered, error) {
	found, err := spec.Source.Discover(ctx, spec.Specs())
	if err != nil {
		return nil, connectors.FailureOf(err, messages.Place{Pipeline: spec.Pipeline, Stage: connectors.StageSource})
	}
	return found, nil
}
