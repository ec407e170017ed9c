// Names that were in the root of the package before they had subpaths: still there, and gone with 1.0.

/** @deprecated Import them from `voxtorch/files`. */
export * from './files/index.js'
/** @deprecated Import them from `voxtorch/serve`. */
export * from './serve/index.js'
/** @deprecated Import them from `voxtorch/salmonn`. */
export * from './systems/salmonn/index.js'
/** @deprecated Import them from `voxtorch/spectra`. */
export * from './systems/spectra/index.js'
