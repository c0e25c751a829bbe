package run

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
)

// finisher counts the calls by which loads are finished.
type finisher struct {
	connectors.Session
	together  []int
	one       []string
	fails     map[string]error
	noneAtAll error
}

func (f *finisher) FinishAll(_ context.Context, ids []messages.LoadID) error {
	f.together = append(f.together, len(ids))
	return f.noneAtAll
}

func (f *finisher) Finish(_ context.Context, id messages.LoadID) error {
	f.one = append(f.one, id.Name)
	return f.fails[id.Name]
}

func finishOf(name string, mode connectors.WriteMode) job {
	l := &loadRun{}
	l.load = connectors.Load{ID: messages.LoadID{Name: name, Number: 1}, Mode: mode}
	return job{name: jobFinish, finish: []*loadRun{l}}
}

func TestLoadsThatWaitAreFinishedTogether(t *testing.T) {
	const add, swap = connectors.ModeAppend, connectors.ModeReplace
	names := func(q []job) (out [][]string) {
		for _, j := range q {
			var one []string
			for _, l := range j.finish {
				one = append(one, l.load.ID.Name)
			}
			out = append(out, one)
		}
		return out
	}
	for name, tc := range map[string]struct {
		queue []job
		want  [][]string
	}{
		"one":             {[]job{finishOf("a", add)}, [][]string{{"a"}}},
		"all":             {[]job{finishOf("a", add), finishOf("b", connectors.ModeUpsert), finishOf("c", add)}, [][]string{{"a", "b", "c"}}},
		"not a replace":   {[]job{finishOf("a", add), finishOf("b", swap), finishOf("c", add)}, [][]string{{"a", "c"}, {"b"}}},
		"a replace first": {[]job{finishOf("a", swap), finishOf("b", add), finishOf("c", add)}, [][]string{{"a"}, {"b"}, {"c"}}},
		"not another job": {[]job{{name: jobClose}, finishOf("a", add)}, [][]string{nil, {"a"}}},
	} {
		a := &Actor{session: &finisher{}, queue: tc.queue}
		a.gather()
		require.Equal(t, tc.want, names(a.queue), name)
	}
	var many []job
	for range finishMost + 3 {
		many = append(many, finishOf("x", add))
	}
	a := &Actor{session: &finisher{}, queue: many}
	a.gather()
	require.Len(t, a.queue[0].finish, finishMost)
	require.Len(t, a.queue, 4)
}

func TestALoadThatCannotBeFinishedKeepsNoOtherFromIt(t *testing.T) {
	var loads []*loadRun
	for _, n := range []string{"a", "b", "c"} {
		loads = append(loads, finishOf(n, connectors.ModeAppend).finish...)
	}
	f := &finisher{}
	require.Equal(t, []error{nil, nil, nil}, finishLoads(t.Context(), f, nil, loads))
	require.Equal(t, []int{3}, f.together)
	require.Empty(t, f.one)

	broken := errors.New("the table is gone")
	f = &finisher{noneAtAll: errors.New("one of them"), fails: map[string]error{"b": broken}}
	require.Equal(t, []error{nil, broken, nil}, finishLoads(t.Context(), f, nil, loads))
	require.Equal(t, []string{"a", "b", "c"}, f.one)

	f = &finisher{}
	errs := finishLoads(t.Context(), f, func() error { return errors.New("the lease has run out") }, loads)
	for _, err := range errs {
		require.Equal(t, connectors.KindFenced, connectors.KindOf(err))
	}
	require.Empty(t, f.together)
	require.Empty(t, f.one)
}
