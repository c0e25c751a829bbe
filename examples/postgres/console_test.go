package main

import (
	"errors"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestConsoleEndsAsATestDoes(t *testing.T) {
	var order []int
	var dir string
	end := func(f func(*console)) (code int) {
		c := &console{}
		defer func() { code = c.end(recover()) }()
		c.Cleanup(func() { order = append(order, 1) })
		dir = c.TempDir()
		c.Cleanup(func() { order = append(order, 2) })
		f(c)
		return 0
	}
	require.Equal(t, 1, end(func(c *console) { check(c, "do", errors.New("no")); t.Error("it went on") }))
	require.Equal(t, []int{2, 1}, order)
	_, err := os.Stat(dir)
	require.ErrorIs(t, err, os.ErrNotExist)
	require.Equal(t, 1, end(func(c *console) { c.Errorf("wrong") }))
	require.Zero(t, end(func(*console) {}))
	require.PanicsWithValue(t, "a bug", func() { end(func(*console) { panic("a bug") }) })
	require.Equal(t, 64, run([]string{"nothing"}))
}
