package config

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode/utf8"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// Specs returns what the source is asked to read, in document order. Names may be
// patterns unless Expand has replaced them.
func (doc *Document) Specs() []connectors.StreamSpec {
	out := make([]connectors.StreamSpec, len(doc.Source.Streams))
	for i, s := range doc.Source.Streams {
		out[i] = connectors.StreamSpec{
			Stream: messages.StreamID(s.Name), Sync: s.SyncMode, Mode: doc.mode(s), Key: slices.Clone(doc.Destination.PrimaryKey),
			CursorField: s.CursorField, TieBreaker: s.TieBreaker, CursorMode: string(s.CursorMode), Lookback: s.Lookback,
			NullCursor: s.NullCursor, PartitionKey: s.PartitionKey, Columns: slices.Clone(s.Columns), Filter: s.Filter, Path: s.Path,
		}
	}
	return out
}

// Stream returns the settings of one stream; ok is false when the document has
// none of that name.
func (doc *Document) Stream(id messages.StreamID) (s Stream, ok bool) {
	i := slices.IndexFunc(doc.Source.Streams, func(s Stream) bool { return s.Name == string(id) })
	if i < 0 {
		return Stream{}, false
	}
	return doc.Source.Streams[i], true
}

// Target returns the name of a stream at the destination, "" for one that the
// document does not have.
func (doc *Document) Target(id messages.StreamID) string { return doc.targets[id] }

// TransformsFor returns the indexes into Transforms of the steps that apply to a
// stream, in order.
func (doc *Document) TransformsFor(id messages.StreamID) []int {
	var out []int
	for i, t := range doc.Transforms {
		if len(t.Streams) == 0 || slices.ContainsFunc(t.Streams, func(p string) bool { return doc.covers(p, string(id)) }) {
			out = append(out, i)
		}
	}
	return out
}

// Place returns where a key path stands in the document, for errors that are found
// later: "source.streams[1].columns". A key that is absent has the place of the
// nearest one above it.
func (doc *Document) Place(field string) messages.Place {
	at := doc.report.find(field)
	return messages.Place{File: doc.report.file, Line: at.line, Column: at.column, Field: field}
}

// PlaceOf returns where the document names a stream: by itself or by a pattern.
func (doc *Document) PlaceOf(id messages.StreamID) messages.Place {
	s, _ := doc.Stream(id)
	at := doc.Place(s.path + ".name")
	at.Stream = id
	return at
}

// Patterns reports whether some stream name is a pattern, which only Expand can
// turn into streams.
func (doc *Document) Patterns() bool {
	return slices.ContainsFunc(doc.Source.Streams, func(s Stream) bool { return isPattern(s.Name) })
}

// Expand returns doc with every pattern replaced by the names of found that it
// matches, in their order. A name that an earlier entry has already is left to that
// entry, and one that is spelled out always is. Its error is Problems: a pattern that
// matches nothing, streams with one target, transforms that name no stream.
func (doc *Document) Expand(found []messages.StreamID) (*Document, error) {
	if !doc.Patterns() {
		return doc, nil
	}
	out := *doc
	out.report.problems, out.report.bad = nil, maps.Clone(doc.report.bad) // doc stays as it is
	out.Source.Streams = doc.choose(&out.report, found)
	out.checkNames(&out.report)
	out.checkTransforms(&out.report)
	if err := out.report.err(); err != nil {
		return nil, err
	}
	return &out, nil
}

// Choose returns the streams that the document asks for: those of found that its
// patterns match, and each that is spelled out, found or not. It does not look at
// targets. Its error is Problems: a pattern that matches nothing.
func (doc *Document) Choose(found []messages.StreamID) ([]messages.StreamID, error) {
	r := doc.report
	r.problems, r.bad = nil, maps.Clone(doc.report.bad)
	var out []messages.StreamID
	for _, s := range doc.choose(&r, found) {
		out = append(out, messages.StreamID(s.Name))
	}
	return out, r.err()
}

// choose replaces patterns by what they match.
func (doc *Document) choose(r *report, found []messages.StreamID) []Stream {
	var out []Stream
	taken := map[string]bool{}
	for _, s := range doc.Source.Streams {
		if !isPattern(s.Name) {
			taken[doc.canonical(s.Name)] = true
		}
	}
	for _, s := range doc.Source.Streams {
		if !isPattern(s.Name) {
			out = append(out, s)
			continue
		}
		matched := false
		for _, id := range found {
			name := string(id)
			if !doc.selects(s.Name, name) || slices.ContainsFunc(s.Exclude, func(p string) bool { return doc.excludes(p, name) }) {
				continue
			}
			matched = true
			if c := doc.canonical(name); !taken[c] {
				taken[c] = true
				one := s
				one.Name = name
				out = append(out, one)
			}
		}
		if !matched {
			r.add(problem{
				code: messages.CodeStreamUnknown, path: s.path + ".name",
				what: "no stream of the source matches " + doc.report.show(s.path+".name", s.Name), next: doc.wider(s.Name),
			})
		}
	}
	return out
}

// mode returns the write mode of a stream.
func (doc *Document) mode(s Stream) connectors.WriteMode {
	if s.WriteMode != "" {
		return s.WriteMode
	}
	return doc.Destination.WriteMode
}

// targetOf fills the template of a stream.
func (doc *Document) targetOf(r *report, s Stream) (target, at string, err error) {
	template, at := "{table}", s.path+".name"
	if doc.Destination.Target != "" {
		template, at = doc.Destination.Target, "destination.target"
	}
	if s.Target != "" {
		template, at = s.Target, s.path+".target"
	}
	schema, table := doc.split(s.Name)
	if strings.Contains(template, "{schema}") && schema == "" {
		return "", at, fmt.Errorf("the target uses {schema}, and stream %s has none", r.show(s.path+".name", s.Name))
	}
	filled := strings.NewReplacer("{schema}", schema, "{table}", table)
	if rest := strings.NewReplacer("{schema}", "", "{table}", "").Replace(template); strings.ContainsAny(rest, "{}") {
		return "", at, fmt.Errorf("found %s, expected a text in which braces enclose schema or table", r.show(at, template))
	}
	return filled.Replace(template), at, nil
}

// fold returns what Postgres makes of a name that is not quoted: lower case, and
// at most 63 bytes of whole characters.
func fold(name string) string {
	const bytesMax = 63
	for len(name) > bytesMax {
		_, n := utf8.DecodeLastRuneInString(name)
		name = name[:len(name)-n]
	}
	return strings.ToLower(name)
}
