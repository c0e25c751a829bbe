package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/config"
)

// invoked is what one command line did.
type invoked struct {
	code           int
	stdout, stderr string
}

// invoke runs Main in this process with an environment of its own.
func invoke(t *testing.T, env map[string]string, args ...string) invoked {
	t.Helper()
	return invokeWith(t, "", env, args...)
}

func invokeWith(t *testing.T, stdin string, env map[string]string, args ...string) invoked {
	t.Helper()
	var stdout, stderr bytes.Buffer
	code := Main(args, strings.NewReader(stdin), &stdout, &stderr, func(name string) (string, bool) {
		v, ok := env[name]
		return v, ok
	})
	return invoked{code: code, stdout: stdout.String(), stderr: stderr.String()}
}

func (i invoked) envelope(t *testing.T) (e struct {
	Command string
	OK      bool
	Summary string
	Result  json.RawMessage
	Error   *struct {
		Code     messages.Code
		ExitCode int `json:"exit_code"`
		What     string
		Next     string
		Problems []messages.Failure
	}
},
) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(i.stdout), &e), i.stdout)
	return e
}

// write puts a file into dir and returns its path.
func write(t *testing.T, dir, name, text string) string {
	t.Helper()
	path := filepath.Join(dir, name)
	require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
	require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	return path
}

func TestWrongUsageIsExplained(t *testing.T) {
	for _, c := range []struct{ args, what, next string }{
		{"", "no command was given", "Use one of: check, completion, copy, discover, dlq, help, init, run, runs, schema, state, version"},
		{"rnu x.yaml", `unknown command "rnu"`, "Did you mean `rapidbyte-node run`?"},
		{"x.yaml", `unknown command "x.yaml"`, "Did you mean `rapidbyte-node run x.yaml`?"},
		{"help rnu", `unknown command "rnu"`, "Did you mean `rapidbyte-node run`?"},
		{"run", "run needs a pipeline document", "For example: `rapidbyte-node run pipeline.yaml`; `-` reads it from stdin."},
		{"check a.yaml b.yaml", "check takes one pipeline document, 2 were given", "Run them one after the other."},
		{"run a.yaml --full-refesh", "unknown flag: --full-refesh", "Did you mean `--full-refresh`?"},
		{"run a.yaml --zzzzzzz", "unknown flag: --zzzzzzz", "See `rapidbyte-node run --help`."},
		{"run a.yaml -x", "unknown shorthand flag: 'x' in -x", "See `rapidbyte-node run --help`."},
		{"run a.yaml --stream", "flag needs an argument: --stream", "See `rapidbyte-node run --help`."},
		{"run a.yaml --output xml", `invalid argument "xml" for "-o, --output" flag: want auto, plain or json`, "See `rapidbyte-node run --help`."},
		{"dlq", "dlq needs a command", "Use one of: export, list, purge, replay, show"},
		{"dlq lst a.yaml", `unknown command "lst"`, "Did you mean `rapidbyte-node dlq list`?"},
		{"dlq list", "list needs a pipeline document", "For example: `rapidbyte-node dlq list pipeline.yaml`; `-` reads it from stdin."},
		{"dlq show a.yaml", "show needs the ID of a dead letter", "`rapidbyte-node dlq list a.yaml` lists them."},
		{"schema x", `schema takes no argument, found "x"`, "See `rapidbyte-node schema --help`."},
		{"completion tcsh", "completion needs the name of a shell", "Use one of: bash, zsh, fish, powershell"},
	} {
		t.Run(c.args, func(t *testing.T) {
			r := invoke(t, nil, strings.Fields(c.args)...)
			require.Equal(t, messages.ExitUsage, r.code)
			require.Empty(t, r.stdout)
			require.Equal(t, "x RB-0101 Wrong usage\n  what    "+c.what+"\n  next -> "+c.next+"\n", r.stderr)
		})
	}
	r := invoke(t, nil, "run", "a.yaml", "-v", "-q")
	require.Equal(t, messages.ExitUsage, r.code)
	require.Contains(t, r.stderr, "verbose")
}

func TestWhoAsksForJSONGetsItForWrongUsageToo(t *testing.T) {
	for _, args := range [][]string{{"run", "--output", "json"}, {"run", "x.yaml", "--nope", "-o", "json"}, {"frobnicate", "--output=json"}} {
		r := invoke(t, nil, args...)
		require.Equal(t, messages.ExitUsage, r.code)
		e := r.envelope(t)
		require.False(t, e.OK)
		require.Equal(t, messages.CodeUsage, e.Error.Code)
		require.Equal(t, messages.ExitUsage, e.Error.ExitCode)
		require.JSONEq(t, "null", string(e.Result))
	}
}

func TestSymbolsNeedATerminalThatHasThem(t *testing.T) {
	for _, c := range []struct {
		env  map[string]string
		args []string
		want string
	}{
		{map[string]string{"LANG": "C.UTF-8"}, nil, "✗ RB-0101"},
		{map[string]string{"LC_ALL": "C", "LANG": "C.UTF-8"}, nil, "x RB-0101"},
		{map[string]string{"LANG": "C.UTF-8", "NO_COLOR": "1"}, nil, "x RB-0101"},
		{map[string]string{"LANG": "C.UTF-8"}, []string{"--output", "plain"}, "x RB-0101"},
		{map[string]string{"LANG": "C.UTF-8", "TERM": "dumb"}, nil, "x RB-0101"},
		{nil, nil, "x RB-0101"},
	} {
		r := invoke(t, c.env, append([]string{"run"}, c.args...)...)
		require.True(t, strings.HasPrefix(r.stderr, c.want), r.stderr)
		require.NotContains(t, r.stderr, "\x1b")
	}
}

func TestVersionNamesWhatItIsMadeOf(t *testing.T) {
	r := invoke(t, nil, "version")
	require.Zero(t, r.code)
	require.Regexp(t, `(?m)^rapidbyte-node +\S+`, r.stdout)
	require.Regexp(t, `(?m)^go +go1\.`, r.stdout)
	require.Equal(t, r.stdout, invoke(t, nil, "--version").stdout)
	e := invoke(t, nil, "version", "-o", "json").envelope(t)
	require.True(t, e.OK)
	require.Nil(t, e.Error)

	release = "v9.8.7"
	defer func() { release = "" }()
	require.Contains(t, invoke(t, nil, "version").stdout, "v9.8.7")
	require.Equal(t, "v1.5.6", duckVersion("v2.10506.0"))
	require.Equal(t, "(devel)", duckVersion("(devel)"))
}

func TestSchemaIsJSONAndAcceptsADocument(t *testing.T) {
	r := invoke(t, nil, "schema")
	require.Zero(t, r.code)
	require.True(t, json.Valid([]byte(r.stdout)))
	require.Contains(t, r.stdout, "max_inflight_batches")
	e := invoke(t, nil, "schema", "-o", "json").envelope(t)
	require.JSONEq(t, r.stdout, string(e.Result))
}

func TestCompletionKnowsEveryShell(t *testing.T) {
	for _, shell := range shells {
		r := invoke(t, nil, "completion", shell)
		require.Zero(t, r.code)
		require.Contains(t, r.stdout, "rapidbyte-node", shell)
		e := invoke(t, nil, "completion", shell, "-o", "json").envelope(t)
		require.True(t, e.OK)
	}
}

func TestCompletionOffersTheStreamsOfTheDocument(t *testing.T) {
	path := write(t, t.TempDir(), "p.yaml", generatorDocument("p", "rows: 1", "blackhole", "", "orders", "users"))
	r := invoke(t, nil, "__complete", "run", path, "--stream", "")
	require.Equal(t, []string{"orders", "users"}, strings.Fields(r.stdout)[:2])
	require.Contains(t, invoke(t, nil, "__complete", "run", "").stdout, "yaml")
	require.Contains(t, invoke(t, nil, "__complete", "check", path, "--output", "").stdout, "plain")
}

func TestADocumentMayComeFromStdin(t *testing.T) {
	t.Chdir(t.TempDir())
	doc := generatorDocument("p", "rows: 5", "blackhole", "", "orders")
	r := invokeWith(t, doc, nil, "run", "-")
	require.Zero(t, r.code, r.stderr)
	require.Contains(t, r.stdout, "orders")
	r = invokeWith(t, "nope: 1", nil, "check", "-")
	require.Equal(t, messages.ExitConfig, r.code)
	require.Contains(t, r.stderr, "stdin:1:1: RB-")
}

// generatorDocument is a pipeline from generated rows.
func generatorDocument(name, source, destination, config string, streams ...string) string {
	var b strings.Builder
	b.WriteString("version: \"1.0\"\npipeline: " + name + "\nsource:\n  use: generator\n  config: {" + source + "}\n  streams:\n")
	for _, s := range streams {
		b.WriteString("    - {name: " + s + "}\n")
	}
	b.WriteString("destination:\n  use: " + destination + "\n  config: {" + config + "}\n  write_mode: append\n")
	return b.String()
}

const canary = "s3cret-canary-9f1c"

// No secret reaches any output, whatever is wrong with the document that holds it.
func TestSecretsAreNeverPrinted(t *testing.T) {
	env := map[string]string{
		"PG_PASSWORD": canary, "SRC_HOST": "src.internal", "SRC_PORT": "5432", "DST_HOST": "dst.internal", "DST_PORT": "5433", "PORT": canary,
	}
	dir := t.TempDir()
	t.Chdir(dir)
	secretFile := write(t, dir, "secret", canary)
	docs := map[string]string{
		"value.yaml":    "version: \"${PG_PASSWORD}\"\npipeline: ${PG_PASSWORD}\n",
		"port.yaml":     strings.Replace(postgresDocument, `"1"`, `"${PORT}"`, 1),
		"planned.yaml":  postgresDocument,
		"file.yaml":     strings.Replace(postgresDocument, "${PG_PASSWORD}", "${file:"+secretFile+"}", 1),
		"nowhere.yaml":  strings.Replace(generatorDocument("p", "rows: 1", "file", "path: out", "a"), "rows: 1", "rows: ${PG_PASSWORD}", 1),
		"literal.yaml":  strings.Replace(postgresDocument, "${PG_PASSWORD}", canary, 1),
		"unknown.yaml":  postgresDocument + "nope: ${PG_PASSWORD}\n",
		"variable.yaml": strings.Replace(postgresDocument, "${PG_PASSWORD}", "${NOT_SET}", 1) + "pasword: ${PG_PASSWORD}\n",
	}
	for name, text := range docs {
		path := write(t, dir, name, text)
		for _, command := range []string{"check", "run", "discover"} {
			for _, mode := range []string{"auto", "json"} {
				r := invoke(t, env, command, path, "-vv", "-o", mode, "--report", "report.json")
				require.NotZero(t, r.code, "%s %s: %s", command, name, r.stdout)
				require.NotContains(t, r.stdout+r.stderr, canary, "%s %s", command, name)
			}
		}
	}
	report, err := os.ReadFile(filepath.Join(dir, "report.json"))
	require.NoError(t, err)
	require.NotContains(t, string(report), canary)
}

// A URL that cannot be read is the document's mistake, and no bug.
func TestABadConnectionOfTheStateStoreIsNamed(t *testing.T) {
	t.Chdir(t.TempDir())
	doc := generatorDocument("p", "rows: 1", "blackhole", "", "a") + "state: {connection: 'postgres://u:s3cret#canary@h/db'}\n"
	path := write(t, ".", "p.yaml", doc)
	for _, command := range [][]string{{"run"}, {"check"}, {"state", "show"}, {"runs", "list"}} {
		r := invoke(t, nil, append(command, path)...)
		require.Equal(t, messages.ExitConfig, r.code, "%s: %s", command, r.stderr)
		require.Contains(t, r.stdout+r.stderr, "RB-2003")
		require.Contains(t, r.stdout+r.stderr, "state.connection")
		require.Contains(t, r.stdout+r.stderr, "%-escapes")
		require.NotContains(t, r.stdout+r.stderr, "s3cret")
	}
}

const postgresDocument = `version: "1.0"
pipeline: p
source:
  use: postgres
  config: {host: 127.0.0.1, port: "1", user: u, password: "${PG_PASSWORD}", database: d}
  streams: [{name: a}]
destination:
  use: postgres
  config: {host: 127.0.0.1, port: 1, user: u, password: "${PG_PASSWORD}", database: d}
  write_mode: append
`

func TestIdentifiersCannotForgeOutput(t *testing.T) {
	require.Equal(t, `a\nb\x1b[31mred\u202eevil\xff`, escape("a\nb\x1b[31mred\u202eevil\xff"))
	require.Equal(t, "größe 表 😀", escape("größe 表 😀"))
	require.Equal(t, "two\nlines \\r", escapeLines("two\nlines \r"))

	t.Chdir(t.TempDir())
	doc := strings.Replace(generatorDocument("p", "rows: 3", "blackhole", "", "X"), "{name: X}", `{name: "a\nFAKE: ok\e[2J"}`, 1)
	r := invokeWith(t, doc, map[string]string{"LANG": "C.UTF-8"}, "run", "-", "-v")
	require.NotContains(t, r.stdout+r.stderr, "\x1b")
	require.NotContains(t, r.stdout+r.stderr, "\nFAKE")
}

func TestTheHeapLimitFollowsTheDocument(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	t.Cleanup(func() { debug.SetMemoryLimit(before) })
	t.Chdir(t.TempDir())
	doc := generatorDocument("p", "rows: 1", "blackhole", "", "a") + "resources: {max_memory: 96mb}\n"
	require.Zero(t, invokeWith(t, doc, nil, "run", "-").code)
	require.EqualValues(t, (96+64)<<20, debug.SetMemoryLimit(-1))

	debug.SetMemoryLimit(before)
	require.Zero(t, invokeWith(t, doc, map[string]string{"GOMEMLIMIT": "1GiB"}, "run", "-").code)
	require.Equal(t, before, debug.SetMemoryLimit(-1))
}

func TestAReportReplacesAFileButNeverADevice(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	require.NoError(t, unix.Mkfifo(pipe, 0o600))
	f, err := os.OpenFile(pipe, os.O_RDWR, 0) // so that neither side waits for the other
	require.NoError(t, err)
	defer f.Close()
	require.Zero(t, invoke(t, nil, "version", "--report", pipe).code)
	info, err := os.Stat(pipe)
	require.NoError(t, err)
	require.Equal(t, os.ModeNamedPipe, info.Mode().Type())

	path := write(t, dir, "report", "old")
	r := invoke(t, nil, "version", "-o", "json", "--report", path)
	got, err := os.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, r.stdout, string(got))
	left, err := os.ReadDir(dir)
	require.NoError(t, err)
	require.Len(t, left, 2, "no temporary file stays")
	require.Equal(t, messages.ExitUsage, invoke(t, nil, "version", "--report", filepath.Join(dir, "no", "report")).code)
}

func TestManyProblemsAreOneError(t *testing.T) {
	r := invokeWith(t, "version: \"2.0\"\npipeline: \"\"\n", nil, "check", "-", "-o", "json")
	require.Equal(t, messages.ExitConfig, r.code)
	e := r.envelope(t)
	require.GreaterOrEqual(t, len(e.Error.Problems), 4)
	require.Equal(t, e.Error.Problems[0].Code, e.Error.Code)
	require.Regexp(t, `^the document has \d+ problems; the first: `, e.Error.What)
	for _, p := range e.Error.Problems {
		require.Contains(t, r.stderr, p.What)
	}
	list, problems := failuresOf(config.Problems(e.Error.Problems))
	require.True(t, problems)
	require.Len(t, list, len(e.Error.Problems))
}
