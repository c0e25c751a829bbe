package rowcheck

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// some is a table in memory.
func some(rows ...[]Cell) Rows {
	return Rows{Columns: []string{"id", "name", "n"}, Key: []string{"id"}, All: func(yield func([]Cell, error) bool) {
		for _, r := range rows {
			if !yield(r, nil) {
				return
			}
		}
	}}
}

func line(id int64, name string, n int64) []Cell { return []Cell{Int(id), Text(name), Int(n)} }

func TestEqualTablesAreTheSameInAnyOrder(t *testing.T) {
	rows := [][]Cell{line(1, "a", 1), line(2, "b", 2), line(2, "b", 2), {Int(3), Null, Int(3)}}
	back := slices.Clone(rows)
	slices.Reverse(back)
	report, err := Compare(t.Context(), some(rows...), some(back...))
	require.NoError(t, err)
	require.NoError(t, report.Err())
	require.True(t, report.Same())
	require.EqualValues(t, 4, report.Want)
	report, err = Compare(t.Context(), some(), some())
	require.NoError(t, err)
	require.True(t, report.Same())
}

func TestEachKindOfDifferenceIsToldApart(t *testing.T) {
	a, b, c := line(1, "a", 1), line(2, "b", 2), line(3, "c", 3)
	for _, test := range []struct {
		name                             string
		want, got                        [][]Cell
		missing, doubled, extra, changed []string // keys
	}{
		{"missing", [][]Cell{a, b, c}, [][]Cell{a, c}, []string{"(2)"}, nil, nil, nil},
		{"doubled", [][]Cell{a, b, c}, [][]Cell{a, b, b, b, c}, nil, []string{"(2)", "(2)"}, nil, nil},
		{"twice as it should be, once is missing", [][]Cell{a, a}, [][]Cell{a}, []string{"(1)"}, nil, nil, nil},
		{"extra", [][]Cell{a}, [][]Cell{a, c}, nil, nil, []string{"(3)"}, nil},
		{"changed", [][]Cell{a, b}, [][]Cell{a, line(2, "B", 2)}, nil, nil, nil, []string{"(2)"}},
		{"NULL is no empty text", [][]Cell{line(1, "", 1)}, [][]Cell{{Int(1), Null, Int(1)}}, nil, nil, nil, []string{"(1)"}},
		{"one for another", [][]Cell{a, b, c}, [][]Cell{a, a, c}, []string{"(2)"}, []string{"(1)"}, nil, nil},
		{"two that swap values", [][]Cell{a, b, c}, [][]Cell{line(1, "b", 1), line(2, "a", 2), c}, nil, nil, nil, []string{"(1)", "(2)"}},
		{"a value moves to the next column", [][]Cell{{Int(1), Text("a,2"), Null}}, [][]Cell{{Int(1), Text("a"), Int(2)}}, nil, nil, nil, []string{"(1)"}},
		{"the same key with another row beside", [][]Cell{a}, [][]Cell{a, line(1, "z", 1)}, nil, nil, []string{"(1)"}, nil},
		{"another key", [][]Cell{a}, [][]Cell{line(9, "a", 1)}, []string{"(1)"}, nil, []string{"(9)"}, nil},
		{"all gone", [][]Cell{a, b}, nil, []string{"(1)", "(2)"}, nil, nil, nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			r, err := Compare(t.Context(), some(test.want...), some(test.got...))
			require.NoError(t, err)
			require.Error(t, r.Err())
			requireKeys(t, test.missing, r.Missing)
			requireKeys(t, test.doubled, r.Doubled)
			requireKeys(t, test.extra, r.Extra)
			requireKeys(t, test.changed, r.Changed)
			for _, key := range slices.Concat(test.missing, test.doubled, test.extra, test.changed) {
				require.ErrorContains(t, r.Err(), key, "it is named")
			}
		})
	}
}

func requireKeys(t *testing.T, want []string, got Differences) {
	t.Helper()
	require.EqualValues(t, len(want), got.Count)
	var keys []string
	for _, d := range got.First {
		keys = append(keys, d.Key)
	}
	require.Equal(t, want, keys)
}

func TestWithoutAKeyTheRowIsTheKey(t *testing.T) {
	want, got := some(line(1, "a", 1)), some(line(1, "a", 2))
	want.Key, got.Key = nil, nil
	r, err := Compare(t.Context(), want, got)
	require.NoError(t, err)
	require.EqualValues(t, 1, r.Missing.Count)
	require.EqualValues(t, 1, r.Extra.Count)
	require.Zero(t, r.Changed.Count)
}

func TestEveryDifferenceIsCountedAndTheFirstAreKept(t *testing.T) {
	var rows [][]Cell
	for i := range int64(3000) {
		rows = append(rows, line(100_000+i, "x", i))
	}
	r, err := Compare(t.Context(), some(rows...), some())
	require.NoError(t, err)
	require.EqualValues(t, 3000, r.Missing.Count)
	require.Len(t, r.Missing.First, shown)
	for i, d := range r.Missing.First {
		require.Equal(t, fmt.Sprintf("(%d)", 100_000+i), d.Key)
	}
}

func TestTablesThatCannotBeComparedAreRefused(t *testing.T) {
	other := some()
	other.Key = []string{"n"}
	_, err := Compare(t.Context(), some(), other)
	require.ErrorContains(t, err, "are not compared")
	short := some([]Cell{Int(1)})
	_, err = Compare(t.Context(), some(), short)
	require.ErrorContains(t, err, "1 cells")
	nowhere := some(line(1, "a", 1))
	nowhere.Key = []string{"none"}
	_, err = Compare(t.Context(), nowhere, nowhere)
	require.ErrorContains(t, err, "key column none")
	broken := some()
	broken.All = iter.Seq2[[]Cell, error](func(yield func([]Cell, error) bool) { yield(nil, errors.New("torn")) })
	_, err = Compare(t.Context(), broken, some())
	require.ErrorContains(t, err, "torn")
}

func TestATableThatChangesWhileItIsComparedIsNotCalledTheSame(t *testing.T) {
	looks := 0
	moving := some()
	moving.All = func(yield func([]Cell, error) bool) {
		if looks++; looks == 1 {
			return
		}
		yield(line(1, "a", 1), nil)
	}
	_, err := Compare(t.Context(), some(line(1, "a", 1)), moving)
	require.ErrorContains(t, err, "somebody has written")
}
