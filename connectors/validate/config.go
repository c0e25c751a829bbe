package validate

import (
	"fmt"
	"regexp"
	"strings"

	"rapidbyte.io/node/connectors"
)

// Config configures the transform.
type Config struct {
	Rules []Rule `yaml:"rules" jsonschema:"required,minItems=1,maxItems=1024" expect:"a list of at least one rule" jsonschema_description:"What each row must satisfy, in order."`
}

// Rule is one assertion; exactly one of its fields is set.
type Rule struct {
	NotNull []string `yaml:"assert_not_null" jsonschema:"minLength=1,oneof_type=string;array" jsonschema_description:"Columns that are never null."`
	Unique  []string `yaml:"assert_unique" jsonschema:"minLength=1,oneof_type=string;array" jsonschema_description:"Columns whose values together are unique."`
	Regex   []Regex  `yaml:"assert_regex" jsonschema:"oneof_type=object;array" jsonschema_description:"Patterns that texts match."`
	Range   []Range  `yaml:"assert_range" jsonschema:"oneof_type=object;array" jsonschema_description:"Bounds that numbers keep."`
}

// Regex demands that a text matches a pattern in RE2 syntax. Null passes.
type Regex struct {
	Field   string `yaml:"field" jsonschema:"required" jsonschema_description:"Column."`
	Pattern string `yaml:"pattern" jsonschema:"required" jsonschema_description:"Regular expression in RE2 syntax; it may match anywhere."`
}

// Range demands that a number lies between two bounds, both inclusive. Null
// passes. At least one bound is set.
type Range struct {
	Field string   `yaml:"field" jsonschema:"required" jsonschema_description:"Column."`
	Min   *float64 `yaml:"min" jsonschema_description:"Least value."`
	Max   *float64 `yaml:"max" jsonschema_description:"Greatest value."`
}

// Problems reports everything that is wrong with c.
func (c Config) Problems() []connectors.Problem {
	var out []connectors.Problem
	if len(c.Rules) == 0 {
		out = append(out, connectors.Problem{Path: "rules", Message: "the list is empty, expected at least one rule"})
	}
	for i, r := range c.Rules {
		out = append(out, r.problems(fmt.Sprintf("rules[%d]", i))...)
	}
	return out
}

func (r Rule) problems(path string) []connectors.Problem {
	var out []connectors.Problem
	add := func(at, message string) { out = append(out, connectors.Problem{Path: at, Message: message}) }
	given := 0
	for _, set := range []bool{r.NotNull != nil, r.Unique != nil, r.Regex != nil, r.Range != nil} {
		if set {
			given++
		}
	}
	if given != 1 {
		add(path, fmt.Sprintf("found %d assertions, expected exactly one of assert_not_null, assert_unique, assert_regex and assert_range", given))
	}
	fields := func(key string, names []string) {
		if names != nil && len(names) == 0 {
			add(path+"."+key, "the list is empty, expected at least one column")
		}
		seen := map[string]bool{}
		for i, n := range names {
			if seen[n] {
				add(fmt.Sprintf("%s.%s[%d]", path, key, i), fmt.Sprintf("found %q twice, expected each column once", n))
			}
			seen[n] = true
		}
	}
	fields("assert_not_null", r.NotNull)
	fields("assert_unique", r.Unique)
	for i, x := range r.Regex {
		at := fmt.Sprintf("%s.assert_regex[%d]", path, i)
		if _, err := regexp.Compile(x.Pattern); err != nil {
			cause := strings.TrimPrefix(err.Error(), "error parsing regexp: ")
			add(at+".pattern", fmt.Sprintf("found %q, expected a regular expression in RE2 syntax: %s", x.Pattern, cause))
		}
	}
	for i, x := range r.Range {
		at := fmt.Sprintf("%s.assert_range[%d]", path, i)
		switch {
		case x.Min == nil && x.Max == nil:
			add(at, "found no bound, expected min, max or both")
		case x.Min != nil && x.Max != nil && *x.Min > *x.Max:
			add(at+".max", fmt.Sprintf("found max %v below min %v, expected min <= max", *x.Max, *x.Min))
		}
	}
	if r.Regex != nil && len(r.Regex) == 0 {
		add(path+".assert_regex", "the list is empty, expected at least one pattern")
	}
	if r.Range != nil && len(r.Range) == 0 {
		add(path+".assert_range", "the list is empty, expected at least one range")
	}
	return out
}
