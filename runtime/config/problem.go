package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/agnivade/levenshtein"

	"rapidbyte.io/node/messages"
)

// problemsMax bounds what one document can make us say.
const problemsMax = 1000

// Problems are all that is wrong with a document, in document order. Each has a
// code, a place with file, line, column and key path, what was found and what
// was expected, and where one is near, the valid spelling.
type Problems []messages.Failure

// Error implements error: one problem per line.
func (p Problems) Error() string {
	lines := make([]string, len(p))
	for i, f := range p {
		lines[i] = line(f)
	}
	return strings.Join(lines, "\n")
}

// ErrorOrNil returns p as an error, nil when there is none.
func (p Problems) ErrorOrNil() error {
	if len(p) == 0 {
		return nil
	}
	return p
}

// Unwrap lets errors.As find the first problem as a messages.Failure.
func (p Problems) Unwrap() []error {
	out := make([]error, len(p))
	for i, f := range p {
		out[i] = f
	}
	return out
}

func line(f messages.Failure) string {
	at := f.Where.File
	if f.Where.Line > 0 {
		at = fmt.Sprintf("%s:%d:%d", at, f.Where.Line, f.Where.Column)
	}
	s := at + ": " + string(f.Code) + " "
	if f.Where.Field != "" {
		s += f.Where.Field + ": "
	}
	s += f.What
	if f.Next != "" {
		s += "; " + f.Next
	}
	return s
}

// position is a place in the document; the zero position is unknown.
type position struct{ line, column int }

// report collects problems and knows where each key path stands.
type report struct {
	file     string
	problems []messages.Failure
	more     bool                // problemsMax was reached
	at       map[string]position // by key path: the value, or the mapping that lacks it
	bad      map[string]bool     // key paths with a problem: their value means nothing
	open     map[string]bool     // key paths whose value is not known: unresolved references
	shown    map[string]string   // by key path: what stands for a value that came from a reference
}

func newReport(file string) report {
	return report{
		file: file, at: map[string]position{}, bad: map[string]bool{},
		open: map[string]bool{}, shown: map[string]string{},
	}
}

// problem is one entry of a report.
type problem struct {
	code messages.Code
	path string
	at   position // zero: where path stands
	what string   // found and expected
	next string   // the valid spelling, or what to do
}

func (r *report) add(p problem) {
	r.bad[p.path] = true
	if len(r.problems) >= problemsMax {
		r.more = true
		return
	}
	r.problems = append(r.problems, r.failure(p))
}

// failure places p.
func (r *report) failure(p problem) messages.Failure {
	if p.at == (position{}) {
		p.at = r.find(p.path)
	}
	return messages.Failure{
		Code: p.code, Kind: "config", What: p.what, Next: p.next,
		Where: messages.Place{File: r.file, Line: p.at.line, Column: p.at.column, Field: p.path},
	}
}

// find returns the position of path or of the nearest key above it.
func (r *report) find(path string) position {
	for ; path != ""; path = parentOf(path) {
		if at, ok := r.at[path]; ok {
			return at
		}
	}
	return cmp.Or(r.at[""], position{1, 1})
}

// has reports whether the document states path.
func (r *report) has(path string) bool { _, ok := r.at[path]; return ok }

// sound reports whether the value at path can be reasoned about.
func (r *report) sound(path string) bool {
	for ; path != ""; path = parentOf(path) {
		if r.bad[path] || r.open[path] {
			return false
		}
	}
	return true
}

// show returns how the value at path may be printed.
func (r *report) show(path, value string) string {
	if s, ok := r.shown[path]; ok {
		return s
	}
	return quote(value)
}

// err returns the problems in document order, or nil.
func (r *report) err() error {
	if len(r.problems) == 0 {
		return nil
	}
	byPlace(r.problems)
	if r.more {
		last := r.problems[len(r.problems)-1].Where
		r.problems = append(r.problems, messages.Failure{
			Code: messages.CodeDocSyntax, Kind: "config", Where: last,
			What: fmt.Sprintf("more than %d problems; the rest is not listed", problemsMax),
		})
	}
	return Problems(r.problems)
}

func byPlace(f []messages.Failure) {
	slices.SortStableFunc(f, func(a, b messages.Failure) int {
		return cmp.Or(cmp.Compare(a.Where.Line, b.Where.Line), cmp.Compare(a.Where.Column, b.Where.Column))
	})
}

// childOf appends a key to a key path; a key that is no plain word is quoted.
func childOf(path, key string) string {
	const plainMax = 64
	plain := key != "" && len(key) <= plainMax && strings.IndexFunc(key, func(r rune) bool {
		return r != '_' && r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	}) < 0
	switch {
	case !plain:
		return path + "[" + quote(key) + "]"
	case path == "":
		return key
	}
	return path + "." + key
}

func itemOf(path string, i int) string { return fmt.Sprintf("%s[%d]", path, i) }

// parentOf cuts the last step of a key path.
func parentOf(path string) string {
	if i := strings.LastIndexAny(path, ".["); i > 0 {
		return path[:i]
	}
	return ""
}

// quote shows a text on one line, cut after 80 characters.
func quote(s string) string {
	const shownMax = 80
	if r := []rune(s); len(r) > shownMax {
		return fmt.Sprintf("%q (cut)", string(r[:shownMax]))
	}
	return fmt.Sprintf("%q", s)
}

// nearest returns the candidate that a typing error most likely meant, or "".
func nearest(word string, candidates []string) string {
	const longMax = 64 // nobody mistypes more; the distance is quadratic
	if word == "" || len(word) > longMax {
		return ""
	}
	best, least := "", 1+min(3, max(1, len(word)/2))
	for _, c := range candidates {
		n := levenshtein.ComputeDistance(strings.ToLower(word), strings.ToLower(c))
		if n < least {
			best, least = c, n
		}
	}
	return best
}

func didYouMean(word string, candidates []string) string {
	if c := nearest(word, candidates); c != "" {
		return "did you mean `" + c + "`?"
	}
	return ""
}

// oneOf lists alternatives: "a, b or c".
func oneOf(words []string) string {
	switch n := len(words); n {
	case 0:
		return "nothing"
	case 1:
		return words[0]
	default:
		return strings.Join(words[:n-1], ", ") + " or " + words[n-1]
	}
}
