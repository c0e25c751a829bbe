// Package config turns a pipeline document (YAML) into a validated, immutable
// value.
//
// # How a document is read
//
//	bytes -> yaml.Node         size, encoding, one document; a panic of the parser is a problem like any other
//	      -> structure         no anchors, aliases, merge keys, tags; depth
//	      -> typed values      one reflective walk: keys, types, bounds, defaults, ${references}
//	      -> connector config  the same walk over the Config struct that `use:` names, then its Problems
//	      -> cross checks      settings that contradict each other
//
// Every step goes on after a problem and reports what is wrong beside it, never
// what is only a consequence of it. Parse returns all of them as Problems, in
// document order, or a Document without any.
//
// # References
//
// ${NAME}, ${NAME:-default} and ${file:/path} are resolved after parsing, scalar
// by scalar: what a variable holds is never read as YAML or as another
// reference. A resolved value and the value of a connectors.Secret are never
// part of a problem's text; the reference stands for it.
//
// # What this version cannot do
//
// A valid document may ask for more than this version has. That is no problem of
// the document: Document.Unavailable lists it, position by position.
//
// The package imports no connector. The caller passes a Catalogue that says
// which names exist and which Go struct describes their config.
package config
