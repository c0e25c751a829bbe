package node

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"strings"

	"rapidbyte.io/node/actors/checkpoint"
	"rapidbyte.io/node/actors/run"
	"rapidbyte.io/node/actors/source"
	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/config"
	"rapidbyte.io/node/runtime/plugin"
	"rapidbyte.io/node/statestore"
	"rapidbyte.io/node/statestore/bbolt"
	"rapidbyte.io/node/statestore/postgres"
)

// BuildOptions narrow or change what the document says, for one invocation.
type BuildOptions struct {
	Streams     []string // only these; empty: all
	FullRefresh bool     // begin new loads and forget what earlier ones read
	Adopt       bool     // the destination may belong to a state store that is lost
}

// Build turns a document into a pipeline that can run. It opens no connection except
// where stream names are patterns: then it asks the source what there is. Its error
// is a messages.Failure, or config.Problems.
func Build(ctx context.Context, doc *config.Document, o BuildOptions) (run.Spec, error) {
	if missing := doc.Unavailable(); len(missing) > 0 {
		return run.Spec{}, config.Problems(missing)
	}
	if err := plugin.Check(doc); err != nil {
		return run.Spec{}, err
	}
	src, err := plugin.Source(doc.Source.Stage)
	if err != nil {
		return run.Spec{}, place(doc, "source", err)
	}
	if doc.Patterns() {
		if doc, err = expand(ctx, doc, src); err != nil {
			return run.Spec{}, err
		}
		if err := plugin.Check(doc); err != nil {
			return run.Spec{}, err
		}
	}
	dst, err := plugin.Destination(doc.Destination.Stage, writePolicy(doc))
	if err != nil {
		return run.Spec{}, place(doc, "destination", err)
	}
	spec := run.Spec{
		Pipeline: doc.Pipeline, Source: src, Destination: dst, Resources: resources(doc.Resources), Adopt: o.Adopt,
	}
	if spec.Streams, err = streams(doc, o); err != nil {
		return run.Spec{}, err
	}
	for i, t := range doc.Transforms {
		tr, err := plugin.Transform(t.Stage)
		if err != nil {
			return run.Spec{}, place(doc, fmt.Sprintf("transforms[%d]", i), err)
		}
		step := run.Transform{Transform: tr, Name: t.Use}
		for _, s := range spec.Streams {
			if slices.Contains(doc.TransformsFor(s.Stream), i) {
				step.Streams = append(step.Streams, s.Stream)
			}
		}
		if len(step.Streams) > 0 {
			spec.Transforms = append(spec.Transforms, step)
		}
	}
	return spec, nil
}

// expand replaces patterns by the streams that the source has.
func expand(ctx context.Context, doc *config.Document, src connectors.Source) (*config.Document, error) {
	found, err := src.Discover(ctx, nil)
	if err != nil {
		return nil, connectors.FailureOf(err, messages.Place{Pipeline: doc.Pipeline, Stage: connectors.StageSource})
	}
	names := make([]messages.StreamID, len(found))
	for i, d := range found {
		names[i] = d.Stream
	}
	return doc.Expand(names)
}

// streams takes over the document's streams, or those that were asked for.
func streams(doc *config.Document, o BuildOptions) ([]run.Stream, error) {
	var out []run.Stream
	var all []string
	left := slices.Clone(o.Streams)
	for _, spec := range doc.Specs() {
		name := string(spec.Stream)
		all = append(all, name)
		asked := func(s string) bool { return doc.Names(s, spec.Stream) }
		if len(o.Streams) > 0 && !slices.ContainsFunc(o.Streams, asked) {
			continue
		}
		left = slices.DeleteFunc(left, asked)
		spec.Fresh = o.FullRefresh
		st, _ := doc.Stream(spec.Stream)
		out = append(out, run.Stream{StreamSpec: spec, Target: doc.Target(spec.Stream), OnLost: run.LostPolicy(st.OnLostSnapshot)})
	}
	if len(left) > 0 {
		return nil, messages.Failure{
			Code: messages.CodeStreamUnknown, Kind: string(connectors.KindConfig),
			What:  fmt.Sprintf("the document has no stream %q", left[0]),
			Where: messages.Place{Pipeline: doc.Pipeline, Stream: messages.StreamID(left[0])},
			Next:  "Its streams are: " + strings.Join(all, ", "),
		}
	}
	return out, nil
}

func resources(r config.Resources) run.Resources {
	return run.Resources{
		MemoryBytes: int64(r.MaxMemory), BatchBytesMax: int64(r.MaxBatchBytes), RowBytesMax: int64(r.MaxRowBytes),
		BatchesMax: r.MaxInflightBatches, Tasks: r.Count(runtime.GOMAXPROCS(0)), Pinned: r.Pinned(), Tune: r.Autotune.Enabled, Retries: r.MaxRetries,
		Interval: source.Interval{
			Bytes: int64(r.CheckpointIntervalBytes), Rows: r.CheckpointIntervalRows, Every: r.CheckpointInterval(),
		},
		Stall: r.StallTimeout(), Decode: r.Passthrough == config.PassthroughOff,
	}
}

// writePolicy takes over what the document says about writing.
func writePolicy(doc *config.Document) connectors.WritePolicy {
	d := doc.Destination
	return connectors.WritePolicy{
		OnDataError: d.OnDataError, DeadRowsMax: d.MaxDLQRows, DeadRatioMax: d.MaxDLQRatio,
		NewColumn: d.SchemaEvolution.NewColumn, Metadata: d.MetadataColumns, FlushBytes: int64(doc.Resources.Autotune.FlushBytes),
	}
}

func place(doc *config.Document, field string, err error) error {
	return connectors.FailureOf(err, doc.Place(field))
}

// OpenStore opens the document's state store. rebuild is the operator's word that a
// lost or damaged one may be begun anew. Its error is a messages.Failure.
func OpenStore(ctx context.Context, doc *config.Document, rebuild bool) (statestore.Store, error) {
	s, err := openStore(ctx, doc.State, rebuild)
	if err != nil {
		f := checkpoint.StoreFailure(doc.Pipeline, err)
		if errors.Is(err, statestore.ErrAddress) {
			f.Where, f.Next = doc.Place("state.connection"), correctConnection
		}
		return nil, f
	}
	return s, nil
}

const correctConnection = "Correct `state.connection`."

func openStore(ctx context.Context, st config.State, rebuild bool) (statestore.Store, error) {
	if st.Backend == config.BackendPostgres {
		return postgres.Open(ctx, postgres.Config{URL: st.Connection.Reveal(), TTL: st.LeaseTTL, Rebuild: rebuild})
	}
	return bbolt.Open(ctx, bbolt.Config{Path: st.Path(), Rebuild: rebuild})
}

// StorePath says where the document's state store is, without secrets.
func StorePath(doc *config.Document) string {
	if doc.State.Backend == config.BackendPostgres {
		return postgres.Path(doc.State.Connection.Reveal())
	}
	return doc.State.Path()
}

// Own takes the lease of a pipeline, where a store that is shared has leases: a run may be
// under way elsewhere. The context ends with the lease. Closing the store gives it
// back. Its error is a messages.Failure.
func Own(ctx context.Context, store statestore.Store, p messages.PipelineID) (context.Context, context.CancelFunc, error) {
	leaser, ok := store.(statestore.Leaser)
	if !ok {
		return ctx, func() {}, nil
	}
	epoch, err := store.Acquire(ctx, p, statestore.Claim{})
	if err != nil {
		return nil, nil, checkpoint.StoreFailure(p, err)
	}
	ctx, cancel := context.WithCancelCause(ctx)
	stop := make(chan struct{})
	go func() {
		select {
		case <-leaser.Lost(p, epoch):
			cancel(checkpoint.StoreFailure(p, leaser.Hold(p, epoch)))
		case <-stop:
		}
	}()
	return ctx, func() { close(stop); cancel(nil) }, nil
}
