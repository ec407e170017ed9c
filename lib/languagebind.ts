// The former name of the subpath `voxtorch/emotion`.
process.emitWarning("voxtorch/languagebind: import from 'voxtorch/emotion' instead", 'DeprecationWarning')

export * from './systems/emotion/index.js'
