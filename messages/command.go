package messages

import "strings"

// Document stands in a command of Failure.Next for the path of the pipeline's document.
// Who knows the path puts it there.
const Document = "DOCUMENT"

// Command returns a command line of the program, in backquotes, with its words as a shell
// takes them.
func Command(words ...string) string {
	line := []string{"rapidbyte-node"}
	for _, w := range words {
		line = append(line, Word(w))
	}
	return "`" + strings.Join(line, " ") + "`"
}

// Word returns s as a shell takes it for one word.
func Word(s string) string {
	plain := func(r rune) bool {
		return strings.ContainsRune("_./-+@%,:=", r) || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z'
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !plain(r) }) < 0 {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}
