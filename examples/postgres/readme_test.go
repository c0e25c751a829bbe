package main

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestPGReadmeCommandsRun runs the commands that the README has for people with a
// database, in order, as they stand there but for the two URIs.
func TestPGReadmeCommandsRun(t *testing.T) {
	s := newServers(t)
	e := newExample(t, t.Output(), s, "chinook")
	e.load()
	s.target.Exec(t, "postgres", "CREATE DATABASE "+e.database("readme"))
	commands := readmeCommands(t, s.root)
	require.GreaterOrEqual(t, len(commands), 4)
	uris := strings.NewReplacer("postgres://app@db/shop", s.source.URL(e.name), "postgres://loader@wh/dw", s.target.URL(e.database("readme")))
	ran := map[string]bool{}
	for _, line := range commands {
		words := strings.Fields(line)
		ran[words[1]] = true
		shell := exec.Command("sh", "-ec", uris.Replace(line))
		shell.Dir = e.dir
		shell.Env = append(os.Environ(), "PATH="+filepath.Dir(s.binary)+":"+os.Getenv("PATH"))
		out, err := shell.CombinedOutput()
		require.NoError(t, err, "%s\n%s", line, out)
		if words[1] == "copy" || words[1] == "run" {
			e.compare("readme", line, 1)
		}
	}
	for _, command := range []string{"copy", "init", "check", "run"} {
		require.True(t, ran[command], command)
	}
}

// readmeCommands returns the lines of the section that begin with the program's name.
func readmeCommands(t *testing.T, root string) (out []string) {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "README.md"))
	require.NoError(t, err)
	_, section, ok := strings.Cut(string(text), "\n## You have a database\n")
	require.True(t, ok)
	section, _, _ = strings.Cut(section, "\n## ")
	for line := range strings.Lines(section) {
		if line = strings.TrimSpace(line); strings.HasPrefix(line, "rapidbyte-node ") {
			out = append(out, line)
		}
	}
	return out
}
