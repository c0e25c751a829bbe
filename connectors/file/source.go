package file

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// identity is Plan.Identity. Files know no server: each load remembers absolute
// paths and contents, and those are compared.
const identity = "file"

// Source reads files. It holds nothing but its configuration.
type Source struct{ config SourceConfig }

// NewSource returns a source, or an error that lists everything wrong with c. It
// does no I/O.
func NewSource(c SourceConfig) (*Source, error) {
	if err := configError("source", c.Problems()); err != nil {
		return nil, err
	}
	return &Source{config: c}, nil
}

func (s *Source) declaredNames() []string { return slices.Sorted(maps.Keys(s.config.Columns)) }

// Remembers implements connectors.Rememberer: finished files are skipped.
func (s *Source) Remembers() bool { return true }

// Check implements connectors.Source.
func (s *Source) Check(ctx context.Context, specs []connectors.StreamSpec) ([]connectors.Finding, error) {
	var out []connectors.Finding
	if len(specs) == 0 {
		found, _, err := s.discovered()
		if err != nil {
			return []connectors.Finding{findingOf(err)}, nil
		}
		specs = found
	}
	for _, spec := range specs {
		out = append(out, s.checkStream(ctx, spec, pathless(specs) == 1)...)
		if err := ctx.Err(); err != nil {
			return out, context.Cause(ctx)
		}
	}
	return out, nil
}

// checkStream reads the head of each file: header, schema, first rows.
func (s *Source) checkStream(ctx context.Context, spec connectors.StreamSpec, only bool) []connectors.Finding {
	if err := checkSpec(spec); err != nil {
		return []connectors.Finding{findingOf(err)}
	}
	files, err := s.filesOf(spec, only)
	if err != nil {
		return []connectors.Finding{findingOf(err)}
	}
	heads := &inspector{source: s} // no budget: a sample of each
	var looked []inspected
	for _, m := range files {
		one, err := heads.look(ctx, m)
		if err != nil {
			return []connectors.Finding{findingOf(err)}
		}
		looked = append(looked, one)
	}
	schema, _, err := s.streamSchema(spec.Stream, looked, nil)
	if err == nil {
		_, _, err = project(spec.Stream, schema, spec.Columns)
	}
	if err != nil {
		return []connectors.Finding{findingOf(err)}
	}
	return nil
}

// checkSpec refuses what files do not have.
func checkSpec(spec connectors.StreamSpec) error {
	place := messages.Place{Stream: spec.Stream}
	switch {
	case spec.Sync == connectors.SyncCDC:
		return refused("read the stream", messages.CodeNotAvailable, place, "Use `sync_mode: full_refresh`: files that were read are skipped.",
			errors.New("files have no change log"))
	case spec.Filter != "":
		return refused("read the stream", messages.CodeNotAvailable, place, "Filter with a transform.", errors.New("the file source has no row filter"))
	}
	return nil
}

// pathless counts the streams that share the configured path.
func pathless(specs []connectors.StreamSpec) (n int) {
	for _, spec := range specs {
		if spec.Path == "" {
			n++
		}
	}
	return n
}

// Discover implements connectors.Source.
func (s *Source) Discover(ctx context.Context, specs []connectors.StreamSpec) ([]connectors.Discovered, error) {
	var files map[messages.StreamID][]match
	if len(specs) == 0 {
		var err error
		if specs, files, err = s.discovered(); err != nil {
			return nil, err
		}
	}
	out := make([]connectors.Discovered, 0, len(specs))
	for _, spec := range specs {
		matches, ok := files[spec.Stream]
		if !ok {
			var err error
			if matches, err = s.filesOf(spec, pathless(specs) == 1); err != nil {
				return nil, err
			}
		}
		plan, _, err := s.shape(ctx, spec, matches, nil)
		if err != nil {
			return nil, err
		}
		out = append(out, connectors.Discovered{StreamPlan: plan.StreamPlan})
	}
	return out, nil
}

// shaped is a stream with what its splits need to know.
type shaped struct {
	connectors.StreamPlan
	encoded  []byte // schema
	declared []string
	skipped  []string
}

// shape infers the schema of a stream from its files.
func (s *Source) shape(ctx context.Context, spec connectors.StreamSpec, files []match, prior map[string]columnType) (shaped, []inspected, error) {
	var rows int64
	exact := true
	look := s.inspector()
	looked := make([]inspected, 0, len(files))
	for _, m := range files {
		one, err := look.look(ctx, m)
		if err != nil {
			return shaped{}, nil, err
		}
		looked = append(looked, one)
		rows += one.rows
		exact = exact && (one.rows > 0 || len(one.names) == 0)
	}
	all, declared, err := s.streamSchema(spec.Stream, looked, prior)
	if err != nil {
		return shaped{}, nil, err
	}
	schema, skipped, err := project(spec.Stream, all, spec.Columns)
	if err != nil {
		return shaped{}, nil, err
	}
	encoded, err := encodeSchema(schema)
	if err != nil {
		return shaped{}, nil, err
	}
	if !exact {
		rows = 0
	}
	plan := connectors.StreamPlan{Stream: spec.Stream, Schema: schema, Key: spec.Key, Rows: rows}
	return shaped{StreamPlan: plan, encoded: encoded, declared: declared, skipped: skipped}, looked, nil
}

// Scan implements connectors.Source.
func (s *Source) Scan(ctx context.Context, r connectors.ScanRequest) (connectors.Scan, error) {
	p := &planner{source: s, request: r, ids: make(map[messages.PartID]bool)}
	p.plan.Identity = identity
	for _, spec := range r.Streams {
		if err := p.stream(ctx, spec); err != nil {
			return nil, err
		}
	}
	return scan{p.plan}, nil
}

// scan has nothing to keep alive: files are compared when they are opened.
type scan struct{ plan connectors.Plan }

// Plan implements connectors.Scan.
func (s scan) Plan() connectors.Plan { return s.plan }

// Close implements connectors.Scan.
func (s scan) Close(context.Context) error { return nil }

// planner plans the streams of one scan.
type planner struct {
	source  *Source
	request connectors.ScanRequest
	plan    connectors.Plan
	ids     map[messages.PartID]bool // taken
}

func (p *planner) stream(ctx context.Context, spec connectors.StreamSpec) error {
	if err := checkSpec(spec); err != nil {
		return err
	}
	past := beforeOf(p.request.Previous, string(spec.Stream))
	matches, err := p.source.filesOf(spec, pathless(p.request.Streams) == 1)
	if e, ok := errors.AsType[*connectors.Error](err); ok && e.Code == messages.CodeSourceMissing && past.known() && !spec.Fresh &&
		spec.Mode != connectors.ModeReplace {
		matches, err = nil, nil // the files that were read may be gone
	}
	if err != nil {
		return err
	}
	files := make([]found, 0, len(matches))
	for _, m := range matches {
		mark, err := fingerprintAt(m.path)
		if err != nil {
			return err
		}
		files = append(files, found{match: m, mark: mark})
	}
	d, err := decide(spec, past, files)
	if err != nil {
		return withStream(err, spec.Stream)
	}
	p.plan.Warnings = append(p.plan.Warnings, d.warnings...)
	p.plan.More = p.plan.More || d.more
	switch {
	case d.number == 0:
		return nil
	case d.resume:
		return p.again(spec, past)
	}
	return p.fresh(ctx, spec, past, d)
}

// again plans an unfinished load exactly as it was.
func (p *planner) again(spec connectors.StreamSpec, past before) error {
	l := connectors.Load{
		ID: past.status.ID, Parts: past.parts, Identity: identity, History: past.status.History, Continuity: connectors.ContinueExact,
	}
	plan := connectors.StreamPlan{Stream: spec.Stream, Key: spec.Key}
	for _, part := range past.parts {
		_, schema, err := decodeSplit(part)
		if err != nil {
			return err
		}
		plan.Schema = schema
		plan.Rows += part.Rows
		p.ids[part.ID] = true
	}
	l.Mode, l.Streams = spec.Mode, []connectors.StreamPlan{plan}
	p.plan.Loads = append(p.plan.Loads, l)
	return nil
}

// fresh plans a new load: one part per file.
func (p *planner) fresh(ctx context.Context, spec connectors.StreamSpec, past before, d decision) error {
	matches := make([]match, len(d.files))
	for i, f := range d.files {
		matches[i] = f.match
	}
	var prior map[string]columnType
	if !spec.Fresh && spec.Mode != connectors.ModeReplace {
		var err error
		if prior, err = past.priorTypes(); err != nil {
			return err
		}
	}
	shape, looked, err := p.source.shape(ctx, spec, matches, prior)
	if err != nil {
		return withStream(err, spec.Stream)
	}
	history, err := d.history.encode()
	if err != nil {
		return err
	}
	l := connectors.Load{
		ID: messages.LoadID{Name: string(spec.Stream), Number: d.number}, Mode: spec.Mode, Streams: []connectors.StreamPlan{shape.StreamPlan},
		Identity: identity, History: history,
	}
	for i, f := range looked {
		if f.mark != d.files[i].mark {
			return withStream(changedSince(f.path, "looked at a moment ago"), spec.Stream)
		}
		part, err := p.part(l.ID, spec, shape, f)
		if err != nil {
			return err
		}
		l.Parts = append(l.Parts, part)
	}
	p.plan.Loads = append(p.plan.Loads, l)
	return nil
}

func (p *planner) part(load messages.LoadID, spec connectors.StreamSpec, s shaped, f inspected) (connectors.Part, error) {
	id := messages.PartID(fmt.Sprintf("%s/%s", spec.Stream, f.rel))
	if p.ids[id] { // streams "a" and "a/b" can lead to one name
		id = messages.PartID(fmt.Sprintf("%s#%s", id, shortHash(string(spec.Stream)+"\x00"+f.path)))
	}
	p.ids[id] = true
	split, err := split{
		Path: f.path, Format: f.format, Compression: f.compression, fingerprint: f.mark,
		Schema: s.encoded, CSV: f.dialect, Declared: s.declared, Skipped: s.skipped,
	}.encode()
	return connectors.Part{ID: id, Load: load, Streams: []messages.StreamID{spec.Stream}, Split: split, Rows: f.rows}, err
}

func withStream(err error, s messages.StreamID) error {
	if e, ok := errors.AsType[*connectors.Error](err); ok && e.Place.Stream == "" {
		e.Place.Stream = s
	}
	return err
}

// fingerprintAt takes the fingerprint of the file at path.
func fingerprintAt(path string) (fingerprint, error) {
	f, err := os.Open(filepath.Clean(path))
	if err != nil {
		return fingerprint{}, sourceError("open the file", path, err)
	}
	defer func() { _ = f.Close() }() // nothing is written
	info, err := f.Stat()
	if err != nil {
		return fingerprint{}, sourceError("look at the file", path, err)
	}
	mark, err := fingerprintOf(f, info.Size())
	if err != nil {
		return fingerprint{}, sourceError("read the file", path, err)
	}
	return mark, nil
}

var (
	_ connectors.Source      = (*Source)(nil)
	_ connectors.Destination = (*Destination)(nil)
)
