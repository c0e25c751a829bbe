package config

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"unicode"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// check looks for settings that are fine one by one and wrong together.
func (doc *Document) check(r *report) {
	for _, s := range doc.Source.Streams {
		doc.checkStream(r, s)
	}
	doc.checkWriteMode(r)
	doc.checkNames(r)
	doc.checkTransforms(r)
	doc.checkTemplate(r)
}

func (doc *Document) checkStream(r *report, s Stream) {
	conflict := func(key, what, next string) {
		if at := s.path + "." + key; r.sound(at) {
			r.add(problem{code: messages.CodeDocConflict, path: at, what: what, next: next})
		}
	}
	if bad := badName(s.Name); bad != "" && r.sound(s.path+".name") {
		r.add(problem{code: messages.CodeDocValue, path: s.path + ".name", what: bad})
	}
	if s.SyncMode == connectors.SyncIncremental && s.CursorField == "" && r.sound(s.path+".sync_mode") {
		conflict("cursor_field", "sync_mode incremental needs a cursor_field", "name the column that grows with each change, or use full_refresh")
	}
	if s.SyncMode == connectors.SyncIncremental && doc.mode(s) == connectors.ModeReplace && r.sound("destination.write_mode") && r.sound(s.path+".write_mode") {
		conflict("sync_mode", "sync_mode incremental contradicts write_mode replace: the target would keep nothing but the newest rows", "use append or upsert, or full_refresh")
	}
	if s.TieBreaker != "" && s.CursorField == "" && r.sound(s.path+".cursor_field") {
		conflict("tie_breaker_field", "a tie_breaker_field means nothing without a cursor_field", "")
	}
	lookback := s.CursorMode == CursorLookback
	switch {
	case !r.sound(s.path+".cursor_mode") || !r.sound(s.path+".lookback"):
	case s.Lookback > 0 && !lookback:
		conflict("lookback", "lookback means nothing unless cursor_mode is lookback", "set `cursor_mode: lookback`, or remove lookback")
	case lookback && s.Lookback == 0:
		conflict("cursor_mode", "cursor_mode lookback needs a lookback", "add for example `lookback: 10m`")
	case lookback && doc.mode(s) == connectors.ModeAppend && r.sound("destination.write_mode") && r.sound(s.path+".write_mode"):
		conflict("cursor_mode", "cursor_mode lookback contradicts write_mode append: each run would append the rows of the window again", "use write_mode upsert, or another cursor_mode")
	}
	if s.OnLostSnapshot == LostRestart && doc.mode(s) == connectors.ModeAppend {
		conflict("on_lost_snapshot", "on_lost_snapshot restart contradicts write_mode append: append cannot take rows back", "use continue or fail, or write_mode replace or upsert")
	}
	if s.Path != "" && doc.Source.Name != "" && !doc.Source.connector.Files {
		conflict("path", "the source "+doc.Source.Name+" reads no files, so a path means nothing", "")
	}
	doc.checkFiles(r, s)
	if len(s.Exclude) > 0 && !isPattern(s.Name) && r.sound(s.path+".name") {
		conflict("exclude", "exclude means nothing unless name is a pattern such as public.*", "")
	}
	for i, p := range append([]string{s.Name}, s.Exclude...) {
		at := s.path + ".name"
		if i > 0 {
			at = itemOf(s.path+".exclude", i-1)
		}
		if _, err := path.Match(p, ""); err != nil && isPattern(p) && r.sound(at) {
			r.add(problem{code: messages.CodeDocValue, path: at, what: "found " + r.show(at, p) + ", expected a pattern of *, ? and [a-z]"})
		}
	}
}

// checkFiles makes sure that each stream of a file source has files.
func (doc *Document) checkFiles(r *report, s Stream) {
	const common = "source.config.path"
	if !doc.Source.connector.Files || s.Path != "" || r.has(common) || !r.sound(common) || !r.sound(s.path+".path") {
		return
	}
	r.add(problem{
		code: messages.CodeDocMissing, path: s.path + ".path",
		what: "the stream has no path, and neither has the source's config", next: "add `path:` with a file or a pattern",
	})
}

// badName says what is wrong with the name of a stream or target, "" for nothing.
func badName(name string) string {
	switch {
	case strings.ContainsRune(name, 0):
		return "the name holds a NUL character"
	case strings.IndexFunc(name, unicode.IsControl) >= 0:
		return "the name holds a control character"
	case name != "" && strings.TrimSpace(name) == "":
		return "the name is blank"
	}
	return ""
}

// checkWriteMode demands a write mode for each stream.
func (doc *Document) checkWriteMode(r *report) {
	const at = "destination.write_mode"
	bare := len(doc.Source.Streams) == 0 || slices.ContainsFunc(doc.Source.Streams, func(s Stream) bool {
		return s.WriteMode == "" && r.sound(s.path+".write_mode")
	})
	if doc.Destination.WriteMode == "" && bare && r.has("destination") && r.sound(at) {
		r.add(problem{code: messages.CodeDocMissing, path: at, what: "the key `write_mode` is missing, expected append, replace or upsert"})
	}
}

// checkNames refuses streams that are doubled or share a target, and notes the
// target of each.
func (doc *Document) checkNames(r *report) {
	doc.targets = map[messages.StreamID]string{}
	names, folded := map[string]Stream{}, map[string]Stream{}
	for _, s := range doc.Source.Streams {
		name := s.path + ".name"
		if s.Name == "" || !r.sound(name) {
			continue
		}
		if first, ok := names[doc.canonical(s.Name)]; ok {
			what := "the stream " + r.show(name, s.Name) + " is given twice"
			if first.Name != s.Name {
				what = "the streams " + r.show(first.path+".name", first.Name) + " and " + r.show(name, s.Name) + " are one table"
			}
			r.add(problem{code: messages.CodeDocConflict, path: name, what: what, next: "remove one of the two"})
			continue
		}
		names[doc.canonical(s.Name)] = s
		target, at, err := doc.targetOf(r, s)
		switch {
		case isPattern(s.Name) || !r.sound("source.config") || !r.sound(at):
			continue // not known yet
		case err != nil:
			r.add(problem{code: messages.CodeDocConflict, path: at, what: err.Error()})
			continue
		}
		if bad := badTarget(target); bad != "" {
			r.add(problem{code: messages.CodeDocValue, path: at, what: bad})
			continue
		}
		doc.targets[messages.StreamID(s.Name)] = target
		if first, ok := folded[fold(target)]; ok {
			r.add(problem{
				code: messages.CodeDocConflict, path: at,
				what: fmt.Sprintf("the streams %s and %s have one target%s", r.show(first.path+".name", first.Name), r.show(name, s.Name), how(target, doc.targets[messages.StreamID(first.Name)])),
				next: "set `target:` for one of the two, or use {schema}_{table} in destination.target",
			})
			continue
		}
		folded[fold(target)] = s
	}
}

// how says why two targets are the same although they differ.
func how(a, b string) string {
	switch {
	case a == b:
		return ""
	case strings.EqualFold(a, b):
		return " after case folding"
	}
	return " after truncation to 63 bytes"
}

func badTarget(target string) string {
	if target == "." || target == ".." {
		return "the target is a relative folder, expected a name"
	}
	return badName(target)
}

// checkTemplate makes sure that the streams of a pattern can have different targets.
func (doc *Document) checkTemplate(r *report) {
	for _, s := range doc.Source.Streams {
		if !isPattern(s.Name) || s.Target == "" && doc.Destination.Target == "" {
			continue
		}
		_, at, err := doc.targetOf(r, s)
		template := s.Target
		if template == "" {
			template = doc.Destination.Target
		}
		switch {
		case !r.sound(at):
		case !strings.Contains(template, "{table}"):
			r.add(problem{code: messages.CodeDocConflict, path: at, what: "the streams of a pattern would have one target", next: "use {table} in the target"})
		case err != nil && doc.Source.connector.Name != "" && !doc.Source.connector.Schemas:
			r.add(problem{code: messages.CodeDocConflict, path: at, what: err.Error()})
		}
		if s.Path != "" && r.sound(s.path+".path") {
			r.add(problem{code: messages.CodeDocConflict, path: s.path + ".path", what: "a stream with a path has a name of its own, not a pattern"})
		}
	}
}

// checkTransforms refuses a step that names a stream which does not exist.
func (doc *Document) checkTransforms(r *report) {
	if !r.sound("source.streams") {
		return
	}
	var names []string
	for _, s := range doc.Source.Streams {
		if !r.sound(s.path + ".name") {
			return
		}
		names = append(names, s.Name)
	}
	for i, t := range doc.Transforms {
		for j, want := range t.Streams {
			at := itemOf(itemOf("transforms", i)+".streams", j)
			known := slices.ContainsFunc(names, func(n string) bool { return doc.covers(want, n) || doc.covers(n, want) })
			if known || want == "" || !r.sound(at) {
				continue
			}
			p := problem{
				code: messages.CodeDocConflict, path: at,
				what: "the transform names the stream " + r.show(at, want) + ", which source.streams does not have",
			}
			if _, ref := r.shown[at]; !ref {
				p.next = didYouMean(want, r.visible(doc.Source.Streams))
			}
			r.add(p)
		}
	}
}

// visible returns the names of streams that may be printed.
func (r *report) visible(streams []Stream) []string {
	var out []string
	for _, s := range streams {
		if _, ref := r.shown[s.path+".name"]; !ref {
			out = append(out, s.Name)
		}
	}
	return out
}
