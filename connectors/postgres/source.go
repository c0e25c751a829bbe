package postgres

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"

	"github.com/agnivade/levenshtein"
	"github.com/jackc/pgx/v5"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// Source implements connectors.Source. All parts of one scan read under one exported
// snapshot; what a reader needs is in its part.
type Source struct {
	cfg  SourceConfig
	dial *dialer

	splitPages  int64 // least blocks of a part, see splitPages
	chunkBlocks int64 // of the first statement of a part, see chunkBlocks
	chunkMost   int64 // of the largest, see chunkMost

	mu    sync.Mutex
	pools map[string]*pool // by snapshot
}

// NewSource returns the source of cfg. It does no I/O.
func NewSource(cfg SourceConfig) (*Source, error) {
	if cfg.Schema == "" {
		cfg.Schema = "public"
	}
	if p := cfg.Problems(); len(p) > 0 {
		return nil, configError("configure the postgres source", p)
	}
	dial, err := newDialer(cfg.Connection, connectors.StageSource)
	if err != nil {
		return nil, err
	}
	return &Source{cfg: cfg, dial: dial, splitPages: splitPages, chunkBlocks: chunkBlocks, chunkMost: chunkMost, pools: map[string]*pool{}}, nil
}

func sourceError(op string, kind connectors.Kind, code messages.Code, err error) *connectors.Error {
	return &connectors.Error{
		Op: op, Kind: kind, Commit: connectors.CommitNone, Code: code, Place: messages.Place{Stage: connectors.StageSource}, Err: err,
	}
}

// streamError is sourceError for one stream.
func streamError(op string, kind connectors.Kind, code messages.Code, stream messages.StreamID, err error) *connectors.Error {
	e := sourceError(op, kind, code, err)
	e.Place.Stream = stream
	return e
}

// classify names what went wrong with a stream.
func (s *Source) classify(ctx context.Context, op string, stream messages.StreamID, err error) error {
	err = classify(ctx, connectors.StageSource, op, err)
	if e, ok := errors.AsType[*connectors.Error](err); ok && e.Place.Stream == "" {
		e.Place.Stream = stream
	}
	return err
}

// inspect gives do a connection that changes nothing.
func (s *Source) inspect(ctx context.Context, op string, do func(*pgx.Conn) error) error {
	conn, err := s.dial.named("rb:check").control(ctx)
	if err != nil {
		return s.classify(ctx, op, "", err)
	}
	defer closeConn(conn)
	return s.classify(ctx, op, "", s.dial.tend(conn, func() error { return do(conn) }))
}

// streamID is how a relation is named as a stream.
func (s *Source) streamID(n qname) messages.StreamID {
	if n.schema == s.cfg.Schema {
		return messages.StreamID(n.name)
	}
	return messages.StreamID(n.schema + "." + n.name)
}

// candidates are what a stream's name can mean, most likely first: the name as a whole,
// then as schema and name, cut at each dot.
func (s *Source) candidates(stream messages.StreamID) []qname {
	whole := string(stream)
	out := []qname{{s.cfg.Schema, whole}}
	for i := range len(whole) {
		if whole[i] == '.' {
			out = append(out, qname{whole[:i], whole[i+1:]})
		}
	}
	return slices.DeleteFunc(out, func(n qname) bool {
		return n.name == "" || n.schema == "" || n.schema == bookkeeping || strings.ContainsRune(n.schema+n.name, 0)
	})
}

// resolve finds the relation of each stream, in a few round trips for all. The error
// names the first stream that means nothing.
func (s *Source) resolve(ctx context.Context, conn *pgx.Conn, specs []connectors.StreamSpec) ([]*relation, error) {
	var names []qname
	for _, spec := range specs {
		names = append(names, s.candidates(spec.Stream)...)
	}
	found, err := readRelations(ctx, conn, names)
	if err != nil {
		return nil, err
	}
	out := make([]*relation, len(specs))
	for i, spec := range specs {
		for _, n := range s.candidates(spec.Stream) {
			if out[i] = found[n]; out[i] != nil {
				break
			}
		}
	}
	return out, nil
}

// unknown says that a stream does not exist, and what does.
func (s *Source) unknown(ctx context.Context, conn *pgx.Conn, stream messages.StreamID) error {
	names, err := s.list(ctx, conn)
	if err != nil {
		return err
	}
	ids := make([]string, len(names))
	for i, n := range names {
		ids[i] = string(s.streamID(n))
	}
	return streamError("find the stream", connectors.KindConfig, messages.CodeStreamUnknown, stream,
		fmt.Errorf("there is no table or view %q%s", string(stream), nearest(string(stream), ids, ": the database has none that this role can see")))
}

const nearestMax = 3

// nearest suggests names, closest first; none is what it says if there are none.
func nearest(name string, names []string, none string) string {
	if len(names) == 0 {
		return none
	}
	type candidate struct {
		name     string
		distance int
	}
	all := make([]candidate, len(names))
	for i, n := range names {
		all[i] = candidate{n, levenshtein.ComputeDistance(strings.ToLower(name), strings.ToLower(n))}
	}
	slices.SortStableFunc(all, func(a, b candidate) int { return a.distance - b.distance })
	var out []string
	for _, c := range all[:min(len(all), nearestMax)] {
		out = append(out, fmt.Sprintf("%q", c.name))
	}
	return "; nearest: " + strings.Join(out, ", ")
}
