// Package examples holds runnable pipelines. Its test runs each as the README says.
package examples

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestFlightsExample runs the README's main job in a copy of its folder, twice.
func TestFlightsExample(t *testing.T) {
	root, err := filepath.Abs("..")
	require.NoError(t, err)
	dir := t.TempDir()
	require.NoError(t, os.CopyFS(filepath.Join(dir, "examples", "flights"), os.DirFS("flights")))
	require.NoError(t, os.RemoveAll(filepath.Join(dir, "examples", "flights", "out")))
	command(t, root, "go", "build", "-o", filepath.Join(dir, "bin")+"/", "./cmd/rapidbyte-node", "./examples/flights/landed")

	node := filepath.Join(dir, "bin", "rapidbyte-node")
	for _, doc := range []string{"duckdb.yaml", "parquet.yaml"} {
		path := filepath.Join("examples", "flights", doc)
		command(t, dir, node, "check", path)
		require.NotContains(t, command(t, dir, node, "run", path), "nothing new")
	}
	first := command(t, dir, filepath.Join(dir, "bin", "landed"))
	golden := filepath.Join("testdata", "landed.golden")
	if os.Getenv("RB_UPDATE") != "" {
		require.NoError(t, os.WriteFile(golden, []byte(first), 0o600))
	}
	want, err := os.ReadFile(golden)
	require.NoError(t, err)
	require.Equal(t, string(want), first)

	for _, doc := range []string{"duckdb.yaml", "parquet.yaml"} {
		require.Contains(t, command(t, dir, node, "run", filepath.Join("examples", "flights", doc)), "nothing new")
	}
	require.Equal(t, first, command(t, dir, filepath.Join(dir, "bin", "landed")), "a second run moves nothing twice")
}

// command runs a program in dir and returns its standard output.
func command(t *testing.T, dir, name string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(context.Background(), name, args...)
	cmd.Dir = dir
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	require.NoError(t, err, "%s %v", name, args)
	return string(out)
}
