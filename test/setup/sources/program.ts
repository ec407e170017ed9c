import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import ts from 'typescript'
import { asModule, blocks, rows } from '../../doc-pages.js'

export const root = new URL('../../../', import.meta.url).pathname
export const examples = ['examples', 'examples/demo'].flatMap((folder) =>
  readdirSync(join(root, folder))
    .filter((name) => name.endsWith('.ts'))
    .map((name) => join(root, folder, name)),
)

/** Each block of the README and of docs/, and each line of the table of equivalents, by the path of a file that is nowhere. */
export const sources = new Map(
  [...blocks.map(({ code }) => `export {}\n${code}`), ...rows.map(asModule)].map((source, i) => [
    join(root, `block-${i}.ts`),
    source,
  ]),
)

function createProgram(): ts.Program {
  const onError = { ...ts.sys, onUnRecoverableConfigFileDiagnostic() {} }
  const { fileNames, options } = ts.getParsedCommandLineOfConfigFile(`${root}tsconfig.json`, {}, onError)!
  const lib = fileNames.filter((file) => file.startsWith(`${root}lib/`))
  // Pages import what the package's face has, not what is deprecated.
  options.paths = { ...options.paths, voxtorch: ['./lib/root.ts'] }
  const host = ts.createCompilerHost(options)
  const { readFile, fileExists, getSourceFile } = host
  host.readFile = (name) => sources.get(name) ?? readFile(name)
  host.fileExists = (name) => sources.has(name) || fileExists(name)
  host.getSourceFile = (name, version, ...rest) => {
    const source = sources.get(name)
    return source === undefined ? getSourceFile(name, version, ...rest) : ts.createSourceFile(name, source, version)
  }
  return ts.createProgram([...lib, ...sources.keys(), ...examples], options, host)
}
/** All of lib, these and the examples. */
export const program = createProgram()
export const checker = program.getTypeChecker()

/** The parsed file of a path below lib. */
export function parsed(path: string): ts.SourceFile {
  const file = program.getSourceFile(`${root}lib/${path}`)
  if (file === undefined) throw new Error(`lib/${path} is no part of the program`)
  return file
}
