package config_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"rapidbyte.io/node/connectors"
	"rapidbyte.io/node/messages"
	"rapidbyte.io/node/runtime/config"
)

// server is a document whose source config is config.
func server(settings string) string {
	return strings.Replace(minimal, "use: table", "use: postgres\n  config: {"+settings+"}", 1)
}

func TestReferencesAreResolvedAfterParsing(t *testing.T) {
	nasty := "a\"b'c: d\n- e #${OTHER} $$ {{x}} ${OTHER}"
	values := map[string]string{
		"HOST": "h", "NASTY": nasty, "PORT": "5433", "EMPTY": "", "/run/secret": "pw\r\n", "TIME": "90s", "SIZE": "3mb", "MODE": "insert", "OTHER": "wrong",
	}
	doc := good(t, server(`host: "${HOST}.x", port: '${PORT}', user: "${NASTY}", password: "${file:/run/secret}", `+
		`database: "$$${HOST} $1 $$ ${NONE:-a:-b}${EMPTY:-x}${EMPTY}", timeout: "${TIME}", flush: "${SIZE}", load_method: "${MODE}"`), values)
	c, ok := doc.Source.Config.(serverConfig)
	require.True(t, ok)
	require.Equal(t, "h.x", c.Host)
	require.Equal(t, 5433, c.Port)
	require.Equal(t, nasty, c.User)
	require.Equal(t, "pw", c.Password.Reveal())
	require.Equal(t, "$h $1 $ a:-bx", c.Database)
	require.Equal(t, connectors.ByteSize(3<<20), c.Flush)
	require.Equal(t, "insert", c.LoadMethod)
}

func TestPlainReferenceFillsANumberAndABoolean(t *testing.T) {
	doc := good(t, with("resources:", "  max_retries: ${N}", "  max_memory: ${SIZE}", "  autotune:", "    enabled: ${NO}"), map[string]string{"N": "7", "SIZE": "32mb", "NO": "false"})
	require.Equal(t, 7, doc.Resources.MaxRetries)
	require.Equal(t, connectors.ByteSize(32<<20), doc.Resources.MaxMemory)
	require.False(t, doc.Resources.Autotune.Enabled)
}

func TestReferencesInKeysAndCommentsMeanNothing(t *testing.T) {
	doc := good(t, with("# ${NONE}"), nil)
	require.NotNil(t, doc)
	requireRefused(t, with(`"${NONE}": 1`), nil, refusal{"8:1", messages.CodeDocKey, `["${NONE}"]`, "unknown key"})
}

func TestReferencesThatCannotBeResolved(t *testing.T) {
	for name, c := range map[string]struct {
		value string
		words string
	}{
		"unset":           {"${NONE}", "the environment variable NONE is not set; set it, or give a default: ${NONE:-default}"},
		"missing file":    {"${file:/no}", `the file "/no" cannot be read: file does not exist`},
		"binary file":     {"${file:/bin}", "does not hold text"},
		"large file":      {"${file:/large}", "larger than 65536 bytes"},
		"binary variable": {"${BIN}", "BIN does not hold text"},
		"not closed":      {"${NAME", "begins no reference"},
		"no name":         {"${}", "begins no reference"},
		"odd name":        {"${a b}", "begins no reference"},
		"nested":          {"${A:-${B}}", "begins no reference"},
		"relative file":   {"${file:x}", "begins no reference"},
		"half a vault":    {"${vault:x}", "begins no reference"},
	} {
		t.Run(name, func(t *testing.T) {
			values := map[string]string{"/bin": "a\x00", "/large": strings.Repeat("x", 65537), "BIN": "\xff"}
			requireRefused(t, server(`host: "`+c.value+`"`), values, refusal{"5:18", messages.CodeDocVariable, "source.config.host", c.words})
			requireRefused(t, server(`host: h, port: "`+c.value+`"`), values, refusal{"5:27", messages.CodeDocVariable, "source.config.port", c.words})
		})
	}
}

func TestEveryMissingVariableIsReported(t *testing.T) {
	requireRefused(t, server(`host: "${A}${B}", password: "${C}"`), nil,
		refusal{"5:18", messages.CodeDocVariable, "source.config.host", "variable A is"},
		refusal{"5:18", messages.CodeDocVariable, "source.config.host", "variable B is"},
		refusal{"5:40", messages.CodeDocVariable, "source.config.password", "variable C is"})
}

func TestVaultReferenceParsesAndIsNotAvailable(t *testing.T) {
	doc := good(t, server(`host: h, port: "${vault:kv/shop#port}", password: "${vault:kv/shop#pw}"`), nil)
	var fields []string
	for _, f := range doc.Unavailable() {
		require.Equal(t, messages.CodeNotAvailable, f.Code)
		fields = append(fields, f.Where.Field)
	}
	require.Equal(t, []string{"source.use", "source.config.port", "source.config.password"}, fields)
}

const canary = "hunter2"

// Wherever a secret stands, and whatever else is wrong, it is in no problem.
func TestProblemsShowNoSecretsAndNoResolvedValues(t *testing.T) {
	values := map[string]string{"V": canary, "/f": canary, "Q": "say \"" + canary + "\"\n", "EMPTY": ""}
	stream := func(s string) string { return strings.Replace(minimal, "{name: a}", s, 1) }
	file := func(s string) string {
		return strings.Replace(minimal, "use: table", "use: table\n  config: {"+s+"}", 1)
	}
	for _, text := range []string{
		// secrets that stand in the document
		server("host: h, pasword: " + canary), server("host: [], password: [" + canary + "]"),
		server("host: [], password: {" + canary + ": x, " + canary + ": y}"), server("host: [], password: *" + canary),
		server("host: [], password: &" + canary + " x"), server("host: [], password: !" + canary + " x"),
		server(`host: [], password: "` + canary + `${"`), server(`host: [], password: "${` + canary + ` x}"`),
		server(`host: [], password: "${EMPTY:-` + canary + `}"`), server(`host: [], port: "${EMPTY:-` + canary + `}"`),
		with("state: {backend: postgres, connection: " + canary + "}"), with("state: {connection: 'mysql://u:" + canary + "@h'}"),
		with("state: {backend: bbolt, connection: 'postgres://u:" + canary + "@h'}"),
		// values of references
		server(`host: h, port: "${V}"`), server(`host: h, port: "${file:/f}"`), server(`host: h, load_method: "${V}"`),
		server(`host: h, timeout: "${V}"`), server(`host: h, flush: "${V}"`), server(`host: h, flush: "1${V}"`),
		file(`path: "${V}"`), file(`columns: {id: "${V}", x: "${Q}"}`), file(`strict: "${V}"`), file(`ratio: "${V}"`), file(`csv: {null_values: ["${V}", "${V}"]}`),
		stream(`{name: "${V}"}` + "\n    - " + `{name: "${V}"}`), stream(`{name: a, target: "${V}"}` + "\n    - " + `{name: "${V}", target: "${V}"}`),
		stream(`{name: a, columns: ["${V}", "${V}"]}`), stream(`{name: "${V}[", exclude: ["${V}["]}`),
		stream(`{name: a, target: "{${V}}"}`), stream(`{name: "${V}", target: "{schema}"}`), stream(`{name: a, sync_mode: "${V}", lookback: "${V}"}`),
		strings.Replace(minimal, "use: table", `use: "${V}"`, 1), strings.Replace(minimal, "pipeline: p", `pipeline: "${Q}"`, 1),
		strings.Replace(minimal, `"1.0"`, `"${V}"`, 1),
		with(`transforms: [{use: sql, config: {query: q}, streams: ["${V}"]}]`),
		with(`resources: {max_memory: "${V}", parallelism: "${V}", max_retries: "${V}"}`),
		with(`state: {backend: "${V}"}`), with(`state: {backend: bbolt, connection: "postgres://${V}"}`),
	} {
		_, problems := parse(t, text, values)
		require.NotEmpty(t, problems, text)
		for _, f := range problems {
			shown := strings.ReplaceAll(f.Error()+f.Next+f.Where.Field, "${vault", "")
			require.NotContains(t, shown, canary, "%s", text)
		}
		require.NotContains(t, problems.Error(), canary)
	}
}

func TestProblemsShowTheReferenceInstead(t *testing.T) {
	requireRefused(t, server(`host: h, port: "${V:-80}"`), map[string]string{"V": "x1"}, refusal{"5:27", messages.CodeDocValue, "source.config.port", `found "${V}", expected a whole number`})
	requireRefused(t, strings.Replace(minimal, "use: table", `use: table`+"\n"+`  config: {path: "${V}"}`, 1), map[string]string{"V": "bad"},
		refusal{"5:18", messages.CodeDocValue, "source.config.path", `found "${V}", expected a good path`})
}

func TestOSReadsVariablesAndFiles(t *testing.T) {
	t.Setenv("RB_CONFIG_TEST", "value")
	env := config.OS()
	got, ok := env.LookupEnv("RB_CONFIG_TEST")
	require.True(t, ok)
	require.Equal(t, "value", got)
	path := filepath.Join(t.TempDir(), "f")
	require.NoError(t, os.WriteFile(path, []byte("content\n"), 0o600))
	b, err := env.ReadFile(path)
	require.NoError(t, err)
	require.Equal(t, "content\n", string(b))
	require.NoError(t, os.WriteFile(path, make([]byte, 1<<20), 0o600))
	b, err = env.ReadFile(path)
	require.NoError(t, err)
	require.Less(t, len(b), 1<<17, "a large file is not taken in")
	_, err = env.ReadFile(path + "x")
	require.ErrorIs(t, err, os.ErrNotExist)
}
