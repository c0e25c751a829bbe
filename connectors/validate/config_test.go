package validate_test

import (
	"testing"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/connectors/validate"
)

func TestSoundRulesHaveNoProblems(t *testing.T) {
	c := validate.Config{Rules: []validate.Rule{
		{NotNull: []string{"id", "email"}},
		{Unique: []string{"id"}},
		{Regex: []validate.Regex{{Field: "email", Pattern: "^[^@]+@[^@]+$"}}},
		{Range: []validate.Range{{Field: "age", Min: new(float64(0)), Max: new(float64(0))}, {Field: "n", Max: new(float64(3))}}},
	}}
	require.Empty(t, c.Problems())
}

func TestEveryBrokenRuleIsReported(t *testing.T) {
	c := validate.Config{Rules: []validate.Rule{
		{},
		{NotNull: []string{"a", "a"}, Unique: []string{}},
		{Regex: []validate.Regex{{Field: "a", Pattern: "("}}},
		{Regex: []validate.Regex{{Field: "a", Pattern: "a"}, {Field: "a", Pattern: "[z-a]"}}},
		{Range: []validate.Range{{Field: "a"}}},
		{Range: []validate.Range{{Field: "a", Min: new(float64(2)), Max: new(float64(1))}}},
		{Regex: []validate.Regex{}},
		{Range: []validate.Range{}},
	}}
	var paths []string
	for _, p := range c.Problems() {
		require.NotEmpty(t, p.Message)
		paths = append(paths, p.Path)
	}
	require.Equal(t, []string{
		"rules[0]", "rules[1]", "rules[1].assert_not_null[1]", "rules[1].assert_unique",
		"rules[2].assert_regex[0].pattern", "rules[3].assert_regex[1].pattern",
		"rules[4].assert_range[0]", "rules[5].assert_range[0].max",
		"rules[6].assert_regex", "rules[7].assert_range",
	}, paths)
}

func TestConfigWithoutRulesIsRefused(t *testing.T) {
	require.Equal(t, []connectors.Problem{{Path: "rules", Message: "the list is empty, expected at least one rule"}}, validate.Config{}.Problems())
}
