// What a message of lib/ advises exists: commands, their options, scripts, packages and keys of configurations.
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import ts from 'typescript'
import { describe, expect, it } from 'vitest'
import { COMMANDS, SYSTEMS } from '../../../lib/cli/commands.js'
import type { CommandRule } from '../../../lib/kit/command.js'
import { flagOf } from '../../../lib/kit/options.js'
import { OWN_SECTIONS } from '../../../lib/systems/salmonn/configuration/own.js'
import { PUBLISHED_SECTIONS } from '../../../lib/systems/salmonn/published/configuration.js'
import { parsed } from './program.js'

const root = fileURLToPath(new URL('../../..', import.meta.url))
const sources = readdirSync(join(root, 'lib'), { recursive: true, encoding: 'utf8' }).filter(
  (path) => path.endsWith('.ts') && !path.includes('generated'),
)

interface Text {
  path: string
  text: string
}

/** The strings of a file, those of templates with … for what is filled in; not those of imports. */
function textsOf(path: string): Text[] {
  const texts: Text[] = []
  const visit = (node: ts.Node): void => {
    if (ts.isImportDeclaration(node) || ts.isExportDeclaration(node)) return
    if (ts.isStringLiteral(node) || ts.isNoSubstitutionTemplateLiteral(node)) texts.push({ path, text: node.text })
    if (ts.isTemplateExpression(node)) {
      const spans = node.templateSpans.map(({ literal }) => `…${literal.text}`)
      texts.push({ path, text: node.head.text + spans.join('') })
    }
    ts.forEachChild(node, visit)
  }
  visit(parsed(path))
  return texts
}
const texts = sources.flatMap(textsOf)

const every = [...COMMANDS, ...Object.values(SYSTEMS).flat()]
const flagsOf = ({ options, originalOptions = {} }: CommandRule): string[] =>
  [
    ...Object.entries(options).flatMap(([name, { aliases = [] }]) => [
      flagOf(name),
      `--no-${flagOf(name).slice(2)}`,
      ...aliases.map((alias) => (alias.startsWith('-') ? alias : `--${alias}`)),
    ]),
    ...Object.keys(originalOptions).map((name) => `--${name}`),
  ].flatMap((flag) => [flag, flag.replaceAll('_', '-')])

/** Files whose texts are command lines of other programs (CMake, pip, Node, npm), and what reads options. */
const RUNS_OTHERS = /^(cli\/(build|provision|launch)|data\/pool|kit\/options|audio\/codecs\/[\w-]+)\.ts$/
/** Style sheets, whose variables begin as options do. */
const STYLES = /<style|<svg|:root|var\(--|[{;]\s*--/
/** Options of Node and npm that messages name. */
const OTHERS = /^--(version|help|merge|expose-gc|max-old-space-size)$/

describe('what messages advise', () => {
  it('commands exist', () => {
    const found = texts.flatMap(({ path, text }) =>
      [...text.matchAll(/\b(?:npx |`)voxtorch ([a-z][a-z-]*)(?: ([a-z][a-z-]*))?/g)].map(
        ([whole, name = '', verb]) => ({ path, whole, name, verb }),
      ),
    )
    expect(found.length).toBeGreaterThan(10)
    for (const { path, whole, name, verb } of found) {
      const room = Object.hasOwn(SYSTEMS, name) ? SYSTEMS[name] : undefined
      const known = room
        ? verb === undefined || room.some((rule) => rule.name === verb)
        : name === 'help' || COMMANDS.some((rule) => rule.name === name)
      expect(known, `${path}: ${whole}`).toBe(true)
    }
  })

  it('options exist in the system whose message names them', () => {
    let count = 0
    const wrong: string[] = []
    for (const { path, text } of texts) {
      if (!text.includes('--') || RUNS_OTHERS.test(path) || STYLES.test(text)) continue
      const folder = /^systems\/([^/]+)\//.exec(path)?.[1]
      const room = folder === undefined ? undefined : SYSTEMS[folder]
      const rules = [...(room ?? []), ...(room ? COMMANDS : every)]
      const flags = new Set(rules.flatMap(flagsOf))
      // A line of a usage text is checked by what command it names.
      for (const [, flag = ''] of text.matchAll(/(?<![\w`-])(--[a-z][a-z0-9_-]+)(?![\w-]*[=:])/g)) {
        // Hyphen and underscore are alike.
        const plain = flag.replaceAll('_', '-')
        if (OTHERS.test(flag) || text.includes('npm ') || text.includes('pip ')) continue
        const named = [...text.matchAll(/voxtorch ([a-z]+) ([a-z-]+)/g)].flatMap(([, name = '', verb]) =>
          (SYSTEMS[name] ?? COMMANDS).filter((rule) => rule.name === verb || rule.name === name).flatMap(flagsOf),
        )
        count++
        if (!flags.has(plain) && !named.includes(plain))
          wrong.push(`${path}: ${flag} in ${JSON.stringify(text.slice(0, 160))}`)
      }
    }
    expect(wrong).toEqual([])
    expect(count).toBeGreaterThan(100)
  })

  it('scripts and packages exist', () => {
    const { scripts, dependencies, peerDependencies } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8'))
    for (const { path, text } of texts) {
      for (const [, name = ''] of text.matchAll(/npm run ([\w:-]+)/g)) expect(scripts, path).toHaveProperty(name)
      for (const [, name = ''] of text.matchAll(/npm (?:install|i) (?:-D )?(@?[a-z][\w/-]*)/g)) {
        expect(
          Object.keys({ ...dependencies, ...peerDependencies, voxtorch: '', tsx: '' }),
          `${path}: ${name}`,
        ).toContain(name)
      }
    }
  })

  it('keys of configurations of SALMONN exist in one of its two forms', () => {
    const keys = [OWN_SECTIONS, PUBLISHED_SECTIONS].flatMap((sections) =>
      Object.entries(sections).flatMap(([section, rules]) => Object.keys(rules).map((key) => `${section}.${key}`)),
    )
    let count = 0
    for (const { path, text } of texts.filter(({ path }) => /^systems\/salmonn\/(?!network)/.test(path))) {
      for (const [key = ''] of text.matchAll(
        /(?<![\w./])(?:model|data|training|generation|datasets|run|generate)\.[a-z]\w*(?!\w*\()/gi,
      )) {
        if (/\.(json|safetensors|bin|ts|js|yaml)$/.test(key)) continue
        count++
        expect(keys, `${path}: ${text.slice(0, 120)}`).toContain(key)
      }
    }
    expect(count).toBeGreaterThan(5)
  })
})
