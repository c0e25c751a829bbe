// Package plugin knows which connectors exist: it lists the built-in ones for the
// pipeline document and makes a connector from a stage of a validated document.
//
// Builtins is the catalogue that config.Parse and config.Schema take. Source,
// Transform and Destination construct what Stage.Config describes; they do no
// I/O, and whoever calls them owns the result. A stage that this version does
// not have (a connector that is only known by its config, a plugin reference) is
// an error of KindConfig with CodeNotAvailable; Document.Unavailable says the
// same earlier, with positions. Check looks at both ends together.
//
// docs/pipeline.schema.json is config.Schema of this catalogue. A test fails when
// it drifts; RB_UPDATE=1 go test ./runtime/plugin rewrites it.
package plugin
