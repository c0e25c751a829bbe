package sqltransform

import (
	"context"
	"errors"
	"runtime"

	"github.com/apache/arrow-go/v18/arrow"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// Transform implements connectors.Transform. Its methods may be called
// concurrently.
type Transform struct {
	cfg Config
	dbs *databases
}

// New returns the transform of cfg. It does no I/O; the embedded databases are
// opened at first use and closed when the Transform is garbage.
func New(cfg Config) (*Transform, error) {
	if problems := cfg.Problems(); len(problems) > 0 {
		errs := make([]error, len(problems))
		for i, p := range problems {
			errs[i] = errors.New(p.Path + " " + p.Message)
		}
		return nil, &connectors.Error{
			Op: "configure the sql transform", Kind: connectors.KindConfig, Code: messages.CodeDocValue, Err: errors.Join(errs...),
		}
	}
	t := &Transform{cfg: cfg.withDefaults()}
	t.dbs = &databases{cfg: t.cfg}
	runtime.AddCleanup(t, (*databases).close, t.dbs)
	return t, nil
}

// Schema returns the schema of the query's result over in. Errors are of
// KindSchema: CodeSchemaQuery with DuckDB's own message and position,
// CodeSchemaColumn for a column that is not there, CodeSchemaType for one that
// DuckDB would change, CodeSchemaName for names that clash.
func (t *Transform) Schema(s messages.StreamID, in *arrow.Schema) (*arrow.Schema, error) {
	p, err := t.plan(s, in)
	if err != nil {
		return nil, err
	}
	return p.out, nil
}

// Findings returns warnings about an accepted query: what a replay may change.
func (t *Transform) Findings(s messages.StreamID, in *arrow.Schema) ([]connectors.Finding, error) {
	p, err := t.plan(s, in)
	if err != nil {
		return nil, err
	}
	return p.findings, nil
}

// Open starts the transform for one part. It checks the query over the planned
// schema of each stream.
func (t *Transform) Open(ctx context.Context, r connectors.StageRequest) (connectors.Stage, error) {
	st := &Stage{transform: t, part: r.Part.ID, limits: r.Limits, mem: r.Mem, programs: map[messages.StreamID]*program{}}
	for _, sp := range r.Streams {
		if err := st.announce(ctx, sp.Stream, sp.Schema); err != nil {
			return nil, errors.Join(err, st.Close(ctx))
		}
	}
	return st, nil
}
