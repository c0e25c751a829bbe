package node

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/config"
	"rapidbyte.io/node/runtime/plugin"
	"rapidbyte.io/node/statestore"
)

// Survey describes what the source has of the document's streams. Patterns stand for
// tables; a view must be named. It looks at nothing but the source. Its error is a
// messages.Failure, or config.Problems.
func Survey(ctx context.Context, doc *config.Document) ([]connectors.Discovered, error) {
	src, err := plugin.Source(doc.Source.Stage)
	if err != nil {
		return nil, place(doc, "source", err)
	}
	at := messages.Place{Pipeline: doc.Pipeline, Stage: connectors.StageSource}
	found, err := src.Discover(ctx, nil)
	if err != nil {
		return nil, connectors.FailureOf(err, at)
	}
	var tables []messages.StreamID
	for _, d := range found {
		if !d.View {
			tables = append(tables, d.Stream)
		}
	}
	names, err := doc.Choose(tables)
	if err != nil {
		return nil, err
	}
	places := make(map[string]int, len(found))
	for i, d := range found {
		places[doc.Canonical(d.Stream)] = i
	}
	out := make([]connectors.Discovered, 0, len(names))
	for _, name := range names {
		i, ok := places[doc.Canonical(name)]
		if !ok {
			// Not listed, because it cannot be read, or is not there: the source knows.
			one, err := src.Discover(ctx, []connectors.StreamSpec{{Stream: name}})
			if err != nil {
				return nil, connectors.FailureOf(err, at)
			}
			if len(one) == 1 {
				out = append(out, one[0])
				continue
			}
			info, _ := messages.CodeStreamUnknown.Info()
			return nil, messages.Failure{
				Code: info.Code, Kind: string(connectors.KindConfig), Where: at,
				What: fmt.Sprintf("the source has no stream %q", name), Next: info.Next,
			}
		}
		out = append(out, found[i])
	}
	return out, nil
}

// Strangers returns the targets of doc that are at the destination already and that
// this pipeline has not loaded. existing is a document whose source is that
// destination. Its error is a messages.Failure.
func Strangers(ctx context.Context, doc, existing *config.Document, store statestore.Store) ([]string, error) {
	state, err := store.Load(ctx, doc.Pipeline)
	if err != nil {
		return nil, connectors.FailureOf(err, messages.Place{Pipeline: doc.Pipeline, Stage: connectors.StageCheckpoint})
	}
	src, err := plugin.Source(existing.Source.Stage)
	if err != nil {
		return nil, place(doc, "destination", err)
	}
	found, err := src.Discover(ctx, nil)
	if e, ok := errors.AsType[*connectors.Error](err); ok && e.Code == messages.CodeSourceMissing {
		return nil, nil // it will be created
	}
	if err != nil {
		return nil, connectors.FailureOf(err, messages.Place{Pipeline: doc.Pipeline, Stage: connectors.StageDestination})
	}
	there := make(map[string]bool, len(found))
	for _, d := range found {
		there[existing.Canonical(d.Stream)] = true
	}
	var out []string
	for _, s := range doc.Source.Streams {
		loaded := slices.ContainsFunc(state.Finished, func(l messages.LoadID) bool { return l.Name == s.Name }) ||
			slices.ContainsFunc(state.Receipts, func(r messages.Receipt) bool { return r.Load == s.Name })
		target := doc.Target(messages.StreamID(s.Name))
		if !loaded && there[existing.Canonical(messages.StreamID(target))] {
			out = append(out, target)
		}
	}
	return out, nil
}
