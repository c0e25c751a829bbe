package config

import (
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"

	"rapidbyte.io/node/connectors"
)

// field is one key of a struct, as its tags describe it.
type field struct {
	key      string
	index    []int
	required bool
	deferred bool // decoded later, by what `use` names
	about    string
	rules    rules
}

// rules are the bounds of a value: the same tags make the JSON Schema.
type rules struct {
	enum      []string
	min, max  string // of a number or byte size
	lengthMin int    // characters
	lengthMax int    // 0 unbounded
	pattern   *regexp.Regexp
	itemsMin  int
	itemsMax  int // 0 unbounded
	unique    bool
	loose     bool     // a single item may stand for a list of one
	defaults  []string // several: of a list
	expect    string   // in words, for a pattern
	secret    bool
}

// item returns the rules of the items of a list with rules r.
func (r rules) item() rules {
	r.itemsMin, r.itemsMax, r.unique, r.loose, r.defaults = 0, 0, false, false, nil
	return r
}

// fieldsOf reads the tags of a struct type: `yaml:"key"` (",inline" spreads a
// struct), `jsonschema:".."` in the syntax of invopop/jsonschema,
// `jsonschema_description:".."`, and `expect:".."` for problems.
// The result is shared: nobody changes it.
func fieldsOf(t reflect.Type) []field {
	if known, ok := fieldsKnown.Load(t); ok {
		return known.([]field) //nolint:errcheck // stored below
	}
	out := readFields(t)
	fieldsKnown.Store(t, out)
	return out
}

// fieldsKnown holds what fieldsOf has read, by type: types are few, questions many.
var fieldsKnown sync.Map

func readFields(t reflect.Type) []field {
	var out []field
	for i := range t.NumField() {
		f := t.Field(i)
		key, opts, _ := strings.Cut(f.Tag.Get("yaml"), ",")
		if opts == "inline" {
			for _, inner := range fieldsOf(f.Type) {
				inner.index = append([]int{i}, inner.index...) // a copy
				out = append(out, inner)
			}
			continue
		}
		if key == "-" || !f.IsExported() {
			continue
		}
		if key == "" {
			panic("config: " + t.String() + "." + f.Name + " has no yaml key")
		}
		tags := splitTag(f.Tag.Get("jsonschema"))
		out = append(out, field{
			key: key, index: []int{i}, deferred: opts == "deferred",
			required: slices.Contains(tags, "required"),
			about:    f.Tag.Get("jsonschema_description"),
			rules:    rulesOf(tags, f.Tag.Get("expect")),
		})
	}
	return out
}

func rulesOf(tags []string, expect string) rules {
	r := rules{expect: expect}
	number := func(s string) int {
		n, err := strconv.Atoi(s)
		if err != nil {
			panic("config: tag with a number that is none: " + s)
		}
		return n
	}
	for _, tag := range tags {
		name, value, _ := strings.Cut(tag, "=")
		switch name {
		case "enum":
			r.enum = append(r.enum, value)
		case "default":
			r.defaults = append(r.defaults, value)
		case "minimum":
			r.min = value
		case "maximum":
			r.max = value
		case "minLength":
			r.lengthMin = number(value)
		case "maxLength":
			r.lengthMax = number(value)
		case "pattern":
			r.pattern = regexp.MustCompile(value)
		case "minItems":
			r.itemsMin = number(value)
		case "maxItems":
			r.itemsMax = number(value)
		case "uniqueItems":
			r.unique = value == "true"
		case "oneof_type", "anyof_type":
			r.loose = slices.Contains(strings.Split(value, ";"), "array")
		}
	}
	return r
}

// splitTag splits at the commas that no backslash escapes.
func splitTag(tag string) []string {
	var out []string
	for part := range strings.SplitSeq(tag, ",") {
		if n := len(out); n > 0 && strings.HasSuffix(out[n-1], `\`) {
			out[n-1] = strings.TrimSuffix(out[n-1], `\`) + "," + part
			continue
		}
		out = append(out, part)
	}
	return out
}

// bound reads a minimum or maximum; ok is false when there is none.
func bound(s string) (n int64, ok bool) {
	if s == "" {
		return 0, false
	}
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		return n, true
	}
	var size connectors.ByteSize
	if err := size.UnmarshalText([]byte(s)); err != nil {
		panic("config: tag with a bound that is none: " + s)
	}
	return int64(size), true
}

func keysOf(fields []field) []string {
	out := make([]string, len(fields))
	for i, f := range fields {
		out[i] = f.key
	}
	return out
}
