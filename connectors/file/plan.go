package file

import (
	"errors"
	"fmt"
	"slices"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// before is what is known of a stream from earlier runs. The zero value is a
// stream that was never loaded.
type before struct {
	status   connectors.LoadStatus
	parts    []connectors.Part // of the newest load
	receipts map[messages.PartID]messages.Receipt
}

// beforeOf finds a stream's newest load in what a destination recovered.
func beforeOf(r connectors.Recovered, name string) before {
	b := before{receipts: make(map[messages.PartID]messages.Receipt)}
	for _, l := range r.Loads {
		if l.ID.Name == name {
			b.status = l
		}
	}
	for _, p := range r.Parts {
		if p.Load == b.status.ID {
			b.parts = append(b.parts, p)
		}
	}
	for _, rc := range r.Receipts {
		if rc.LoadID() == b.status.ID {
			b.receipts[rc.Part] = rc
		}
	}
	slices.SortFunc(b.parts, func(x, y connectors.Part) int { return compareParts(x.ID, y.ID) })
	return b
}

func compareParts(a, b messages.PartID) int {
	switch {
	case a < b:
		return -1
	case a > b:
		return 1
	}
	return 0
}

func (b before) known() bool { return b.status.ID.Number > 0 }

// decision is what a scan does with one stream.
type decision struct {
	number   uint64  // of the load; 0: nothing to read
	resume   bool    // go on with the parts of that load as they are
	files    []found // of a new load
	history  history
	more     bool // there is more than the resumed load has
	warnings []connectors.Finding
}

// found is a file that matches now.
type found struct {
	match
	mark fingerprint
}

// decide compares the files that match with what is known of the stream. It is
// pure: the same files and the same past give the same decision.
//
//	no load before, or a reset        all files, load +1
//	finished, replace                 all files, load +1
//	finished, append or upsert        files that no finished load has read, load +1; none: nothing
//	unfinished, rest unchanged        the same load, as it was planned
//	unfinished, rest changed          replace, upsert: load +1; append: refused
func decide(spec connectors.StreamSpec, b before, files []found) (decision, error) {
	if !b.known() {
		return decision{number: 1, files: files}, nil
	}
	h, err := decodeHistory(b.status.History)
	if err != nil {
		return decision{}, err
	}
	next := b.status.ID.Number + 1
	splits, err := b.splits()
	if err != nil {
		return decision{}, err
	}
	if spec.Fresh {
		return decision{number: next, files: files, history: h.reset(b, splits, spec.Mode)}, nil
	}
	if b.status.Finished {
		h.Files, h.Before = h.with(b.read(splits)), nil
		if spec.Mode == connectors.ModeReplace {
			return decision{number: next, files: files, history: history{Before: h.Files}}, nil
		}
		fresh, err := unread(h, files)
		if err != nil || len(fresh) == 0 {
			return decision{}, err
		}
		return decision{number: next, files: fresh, history: h}, nil
	}
	return resume(spec, b, h, splits, files)
}

// reset is the memory of a load that reads everything again. Until a replace has
// swapped, what earlier loads wrote stands in the target.
func (h history) reset(b before, splits []split, mode connectors.WriteMode) history {
	switch {
	case mode != connectors.ModeReplace:
		return history{}
	case b.status.Finished:
		return history{Before: h.with(b.read(splits))}
	case b.status.Mode == connectors.ModeReplace:
		return history{Before: h.Before}
	}
	return history{Before: h.with(b.begun(splits))}
}

// resume decides about a load that is not finished.
func resume(spec connectors.StreamSpec, b before, h history, splits []split, files []found) (decision, error) {
	next := b.status.ID.Number + 1
	byPath := make(map[string]fingerprint, len(files))
	for _, f := range files {
		byPath[f.path] = f.mark
	}
	was := b.status.Mode
	if was == "" {
		was = spec.Mode
	}
	planned := make(map[string]bool, len(splits))
	var bad string
	for i, s := range splits {
		planned[s.Path] = true
		if b.receipts[b.parts[i].ID].Final {
			continue
		}
		if mark, ok := byPath[s.Path]; (!ok || mark != s.fingerprint) && bad == "" {
			bad = s.Path
		}
	}
	switch {
	case was == connectors.ModeReplace && spec.Mode != connectors.ModeReplace:
		// nothing of that load was ever visible: what was remembered before it counts
		h = history{Files: h.Before}
		if spec.Mode == connectors.ModeUpsert { // reads a file again without harm
			h.Files = slices.DeleteFunc(h.Files, func(f remembered) bool { return f.Partly })
		}
		fresh, err := unread(h, files)
		if err != nil || len(fresh) == 0 {
			return decision{}, err
		}
		return decision{number: next, files: fresh, history: h}, nil
	case was != connectors.ModeReplace && spec.Mode == connectors.ModeReplace:
		return decision{number: next, files: files, history: h.reset(b, splits, spec.Mode)}, nil
	case bad == "":
		d := decision{number: b.status.ID.Number, resume: true, history: h}
		d.more = hasMore(h, planned, files)
		return d, nil
	case spec.Mode == connectors.ModeAppend:
		return decision{}, refused("compare the file with what is known of it", messages.CodeSourceChanged, messages.Place{File: bad},
			"Restore the file and run again, or load again with `--full-refresh`.",
			errors.New("its content is not what it was when it was planned, in a load that is not finished"))
	}
	d := decision{number: next, files: files, history: h, warnings: []connectors.Finding{{
		Severity: connectors.SeverityWarning, Code: messages.CodeSourceChanged,
		Where:   messages.Place{Stream: spec.Stream, File: bad},
		Message: "the file changed while its load was not finished; the load begins again",
	}}}
	if spec.Mode == connectors.ModeUpsert {
		fresh, err := unread(h, files)
		if err != nil || len(fresh) == 0 {
			return decision{}, err
		}
		d.files = fresh
	}
	return d, nil
}

// unread returns the files that no finished load has read. One that was read and
// is not the same any more is refused: it can be neither skipped nor read twice.
func unread(h history, files []found) ([]found, error) {
	known := make(map[string]remembered, len(h.Files))
	for _, f := range h.Files {
		known[f.Path] = f
	}
	var out []found
	for _, f := range files {
		was, ok := known[f.path]
		switch {
		case !ok:
			out = append(out, f)
		case was.Partly:
			return nil, refused("compare the file with what is known of it", messages.CodeSourceChanged, messages.Place{File: f.path},
				"Let a load with `write_mode: replace` finish, or load again with `--full-refresh`.",
				fmt.Errorf("%d rows of it are in the target, by a load that was given up for a replace", was.Rows))
		case was.fingerprint != f.mark:
			return nil, changedSince(f.path, "read by a finished load")
		}
	}
	return out, nil
}

// hasMore reports files that a resumed load does not have.
func hasMore(h history, planned map[string]bool, files []found) bool {
	known := make(map[string]bool, len(h.Files))
	for _, f := range h.Files {
		known[f.Path] = true
	}
	return slices.ContainsFunc(files, func(f found) bool { return !planned[f.path] && !known[f.path] })
}

// splits decodes the splits of the load's parts, in their order.
func (b before) splits() ([]split, error) {
	out := make([]split, 0, len(b.parts))
	for _, p := range b.parts {
		s, _, err := decodeSplit(p)
		if err != nil {
			return nil, err
		}
		out = append(out, s)
	}
	return out, nil
}

// read is what the finished load adds to the memory.
func (b before) read(splits []split) []remembered {
	out := make([]remembered, len(splits))
	for i, s := range splits {
		out[i] = remembered{Path: s.Path, fingerprint: s.fingerprint, Rows: b.receipts[b.parts[i].ID].Rows.Read}
	}
	return out
}

// begun is what an unfinished load has left in the target: the files that it has read,
// whole or partly.
func (b before) begun(splits []split) []remembered {
	var out []remembered
	for i, f := range b.read(splits) {
		r := b.receipts[b.parts[i].ID]
		if f.Partly = !r.Final; r.Version.Commit > 0 {
			out = append(out, f)
		}
	}
	return out
}

// priorTypes is the type of each column in the stream's newest load.
func (b before) priorTypes() (map[string]columnType, error) {
	if len(b.parts) == 0 {
		return nil, nil
	}
	_, schema, err := decodeSplit(b.parts[0])
	if err != nil {
		return nil, fmt.Errorf("types of earlier loads: %w", err)
	}
	prior := make(map[string]columnType)
	for _, f := range schema.Fields() {
		if t, ok := typeOf(f); ok {
			prior[f.Name] = t
		}
	}
	return prior, nil
}
