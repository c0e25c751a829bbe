package mutant_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/runtime/mutant"
)

const root = "../.."

// declared maps the names of the constants to the faults.
func declared(t *testing.T) map[string]mutant.Fault {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), "mutant.go", nil, 0)
	require.NoError(t, err)
	out := map[string]mutant.Fault{}
	ast.Inspect(file, func(n ast.Node) bool {
		if v, ok := n.(*ast.ValueSpec); ok {
			value, ok := v.Values[0].(*ast.BasicLit)
			require.True(t, ok)
			out[v.Names[0].Name] = mutant.Fault(strings.Trim(value.Value, `"`))
		}
		return true
	})
	return out
}

// places counts the calls of mutant.On for each fault in the program.
func places(t *testing.T) map[mutant.Fault]int {
	t.Helper()
	faults := declared(t)
	out := map[mutant.Fault]int{}
	require.NoError(t, filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return err
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			return err
		}
		ast.Inspect(file, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || !isMutant(call.Fun, "On") {
				return true
			}
			fault, ok := call.Args[0].(*ast.SelectorExpr)
			require.True(t, ok, "%s: a fault is named by its constant", path)
			require.Contains(t, faults, fault.Sel.Name, path)
			out[faults[fault.Sel.Name]]++
			return true
		})
		return nil
	}))
	return out
}

func isMutant(e ast.Expr, name string) bool {
	s, ok := e.(*ast.SelectorExpr)
	if !ok || s.Sel.Name != name {
		return false
	}
	x, ok := s.X.(*ast.Ident)
	return ok && x.Name == "mutant"
}

func TestEveryFaultIsDeclaredOnce(t *testing.T) {
	all := mutant.Faults()
	require.Len(t, declared(t), len(all))
	for name, f := range declared(t) {
		require.Contains(t, all, f, name)
	}
}

// A fault that is not in the table of scripts/mutants is looked for by nobody, and one
// that is nowhere in the program can be found by nothing.
func TestEveryFaultIsPlantedAndInTheTable(t *testing.T) {
	listed, err := exec.CommandContext(t.Context(), filepath.Join(root, "scripts", "mutants"), "--list").Output()
	require.NoError(t, err)
	table := map[mutant.Fault]bool{}
	for line := range strings.Lines(string(listed)) {
		f := mutant.Fault(strings.Fields(line)[0])
		require.Contains(t, mutant.Faults(), f, line)
		table[f] = true
	}
	planted := places(t)
	for _, f := range mutant.Faults() {
		require.Positive(t, planted[f], "%s is planted nowhere", f)
		require.True(t, table[f], "%s is not in the table of scripts/mutants", f)
	}
}
