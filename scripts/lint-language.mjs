// Check the language of docs, docstrings, comments, error messages and page texts: the words and sentence patterns below stay out.
//
//   node scripts/lint-language.mjs [--summary] [paths…]
//
// Reads TypeScript (comments, and strings of two words or more), C++ and CUDA (the same) and Markdown (everything outside code).
// A line that must keep a word, such as a quotation or the name of a file format's field, ends in `language: <reason>` in a comment.
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { parseArgs } from 'node:util'
import ts from 'typescript'

const root = join(dirname(fileURLToPath(import.meta.url)), '..')

/** @typedef {'docstring' | 'comment' | 'string' | 'markdown'} Kind */
/** @typedef {{ kind: Kind, line: number, text: string }} Passage */
/** @typedef {{ pattern: RegExp, advice: string, kinds?: Kind[] }} Rule */

/** @type {Record<string, Rule>} */
const rules = {
  'docstring-start': {
    pattern: /^(What|Of|How|Who|Whose|Which|Where|As|That|Nothing)\b/,
    advice: 'start with an imperative verb ("Return …") or, for a value, with its noun',
    kinds: ['docstring'],
  },
  'no-noun': {
    pattern: /(?<!\bthere )\b(is|are|was|were) (no (?!longer|more|different|need|way|reason)|none\b)/i,
    advice: 'say what was expected: "expected X, got Y", or "is not a …"',
  },
  behind: { pattern: /\bbehind\b(?! a proxy)/i, advice: '"after", or name the relation' },
  beside: { pattern: /\bbeside\b/i, advice: '"next to", "in addition to", "with"' },
  nobody: { pattern: /\b(nobody|no one|somebody|everybody)\b/i, advice: 'name who: the user, the caller, the speaker' },
  'all-but': { pattern: /\ball but\b|\bnothing that\b[^.]{0,60}\bnot\b/i, advice: 'say it directly' },
  'who-only': { pattern: /(^|[.;:] )Who(ever)? (?!is\b)[a-z]+/, advice: 'name the subject: "To only …, use …"' },
  body: { pattern: /\b(ears?|eyes?|minds?|sight)\b/i, advice: 'audio encoder, vision encoder, language model' },
  tower: { pattern: /\btowers?\b/i, advice: 'text encoder, vision encoder, audio encoder' },
  building: {
    pattern: /\b(rooms|(a|this|the|that|its|own) room|houses?)\b(?! for)/i,
    advice: 'module, folder, system; check, filter',
  },
  image: { pattern: /\b(pictures?|photos?)\b/i, advice: 'image (or figure, for one that is drawn)' },
  video: { pattern: /\b(films?|movies?)\b/i, advice: 'video' },
  audio: { pattern: /\bsounds?\b/i, advice: 'audio' },
  likely: { pattern: /\b(likeliest|likelier)\b/i, advice: 'most likely, top' },
  scratch: { pattern: /\bfrom nothing\b/i, advice: 'from scratch' },
  integer: { pattern: /\bwhole numbers?\b/i, advice: 'integer' },
  fraction: {
    pattern: /\b(a|the|its|this|larger|smaller) shares?\b(?! a\b)|\bshares? of\b/i,
    advice: 'fraction, ratio, probability',
  },
  foreign: { pattern: /\bforeign\b/i, advice: 'alias of the original, external, of another tool' },
  preset: { pattern: /\bpresets?\b/i, advice: 'default' },
  asked: {
    pattern: /\b(is|are|was|were|be|been|being) (asked(?! for)|told)\b|\bhears? of\b|\b(has|have|had) to say\b/i,
    advice: 'takes, receives, is called with, is prompted',
  },
  teach: { pattern: /\b(teach(es)?|taught)\b/i, advice: 'trains, instruction-tunes, shows' },
  said: { pattern: /\bwhat (is|was|has been|somebody) (said|says)\b/i, advice: 'the utterance, the previous turns' },
  'the-word': { pattern: /\bhas the word\b/i, advice: 'it is the turn of' },
  american: {
    pattern:
      /\b(\w*(normalis|optimis|tokenis|initialis|serialis|quantis|generalis|recognis|organis|summaris|finalis|synchronis|utilis|minimis|maximis|realis|specialis|randomis|parallelis|vectoris|visualis|categoris|prioritis)(e|es|ed|er|ers|ing|ation|ations)|\w*(behaviour|colour|favour|neighbour|honour)\w*|grey|centre[ds]?|(kilo|centi|milli)?metres?|licences?|licenced|catalogues?|modelling|labell(ed|ing)|cancell(ed|ing)|travell(ed|ing)|analys(e|ed|ing)|defence|artefacts?|whilst|amongst|learnt|spelt|burnt|unlearnt|judgement|towards)\b/i,
    advice: 'American spelling',
  },
  'long-sentence': {
    pattern: /$^/,
    advice: 'at most 45 words in a sentence',
    kinds: ['docstring', 'comment', 'markdown'],
  },
  'long-paragraph': { pattern: /$^/, advice: 'at most 90 words in a paragraph', kinds: ['markdown'] },
}

const MOST_WORDS = { sentence: 45, paragraph: 90 }
const isProse = (/** @type {string} */ text) => /[A-Za-z]{2,}[^A-Za-z]+[A-Za-z]{2,}/.test(text) && text.includes(' ')

/** Strip the marks of a comment, and code in backticks, keeping the lines. @param {string} comment */
const commentText = (comment) => comment.replace(/^\/\*+|\*+\/$/g, '').replace(/^[ \t]*(\/\/+|\*)[ \t]?/gm, '')

/** @param {string} text */
const withoutCode = (text) =>
  text
    .replace(/`[^`]*`/g, (code) => `X${code.replace(/[^\n]/g, '')}`)
    .replace(/https?:\/\/\S+/g, 'X')
    .replace(/\{@\w+ [^}]*\}/g, 'X')

/** Split the comments of one file into passages: neighboring `//` lines belong together. @param {string} source @returns {Passage[]} */
function commentsAndStrings(source, isTypeScript = true) {
  /** @type {Passage[]} */
  const passages = []
  const lineAt = lineCounter(source)
  let lineComment = { end: -2, line: 0, text: '' }
  const flush = () => {
    if (lineComment.text) passages.push({ kind: 'comment', line: lineComment.line, text: lineComment.text })
    lineComment = { end: -2, line: 0, text: '' }
  }
  const comment = (/** @type {string} */ text, /** @type {number} */ position) => {
    const line = lineAt(position)
    if (!text.startsWith('//')) {
      const isDocstring = text.startsWith('/**')
      passages.push({ kind: isDocstring ? 'docstring' : 'comment', line, text: commentText(text) })
      return
    }
    if (line !== lineComment.end + 1) flush()
    if (!lineComment.text) lineComment.line = line
    lineComment.text += `${commentText(text)}\n`
    lineComment.end = line
  }
  const string = (/** @type {string} */ text, /** @type {number} */ position) => {
    if (isProse(text)) passages.push({ kind: 'string', line: lineAt(position), text })
  }
  if (isTypeScript) {
    const file = ts.createSourceFile('x.ts', source, ts.ScriptTarget.Latest, true)
    const seen = new Set()
    const trivia = (/** @type {number} */ position, /** @type {ts.CommentRange[] | undefined} */ ranges) => {
      for (const { pos, end } of ranges ?? []) {
        if (seen.has(pos)) continue
        seen.add(pos)
        comment(source.slice(pos, end), pos)
      }
      return position
    }
    const visit = (/** @type {ts.Node} */ node) => {
      if (node.getChildCount(file) === 0) {
        trivia(node.pos, ts.getLeadingCommentRanges(source, node.pos))
        trivia(node.end, ts.getTrailingCommentRanges(source, node.end))
      }
      if (ts.isStringLiteral(node) && !ts.isImportDeclaration(node.parent)) string(node.text, node.getStart(file))
      else if (ts.isNoSubstitutionTemplateLiteral(node)) string(node.text, node.getStart(file))
      else if (ts.isTemplateExpression(node))
        string(node.head.text + node.templateSpans.map((span) => `X${span.literal.text}`).join(''), node.getStart(file))
      for (const child of node.getChildren(file)) if (child.kind !== ts.SyntaxKind.JSDoc) visit(child)
    }
    visit(file)
  } else {
    const token = /\/\/[^\n]*|\/\*[\s\S]*?\*\/|"(?:[^"\\\n]|\\.)*"|'(?:[^'\\\n]|\\.)'/g
    for (const match of source.matchAll(token)) {
      const text = match[0]
      if (text.startsWith('/')) comment(text, match.index)
      else if (text.startsWith('"')) string(text.slice(1, -1), match.index)
    }
  }
  flush()
  return passages
}

/** @param {string} source @returns {(position: number) => number} */
function lineCounter(source) {
  const starts = [0]
  for (let at = source.indexOf('\n'); at >= 0; at = source.indexOf('\n', at + 1)) starts.push(at + 1)
  return (position) => {
    let low = 0
    let high = starts.length
    while (high - low > 1) {
      const middle = (low + high) >> 1
      if (/** @type {number} */ (starts[middle]) <= position) low = middle
      else high = middle
    }
    return low + 1
  }
}

/** Split Markdown into paragraphs, leaving out code blocks, front matter and HTML. @param {string} source @returns {Passage[]} */
function markdownPassages(source) {
  /** @type {Passage[]} */
  const passages = []
  let text = ''
  let start = 0
  let fence = ''
  const flush = () => {
    if (text.trim()) passages.push({ kind: 'markdown', line: start, text })
    text = ''
  }
  for (const [index, line] of source.split('\n').entries()) {
    const mark = /^\s*(`{3,}|~{3,})/.exec(line)?.[1]
    if (index === 0 && line === '---') fence = '---'
    else if (fence) {
      if (line.trim().startsWith(fence)) fence = ''
    } else if (mark) {
      flush()
      fence = mark
    } else if (/^\s*$|^\s*<|^\s*(\||#|[-*] |\d+\. )/.test(line)) {
      flush()
      if (/^\s*(\||#|[-*] |\d+\. )/.test(line)) {
        start = index + 1
        text = `${line}\n`
        if (/^\s*[|#]/.test(line)) flush()
      }
    } else {
      if (!text) start = index + 1
      text += `${line}\n`
    }
  }
  flush()
  return passages
}

/** @param {string} text */
const countWords = (text) => text.split(/\s+/).filter((word) => /[A-Za-z]/.test(word)).length

/** @param {Passage} passage @returns {{ rule: string, line: number, found: string }[]} */
function faultsOf({ kind, line, text }) {
  const faults = []
  const plain = kind === 'string' ? text : withoutCode(text)
  const lines = plain.split('\n')
  for (const [name, { pattern, kinds }] of Object.entries(rules)) {
    if (kinds && !kinds.includes(kind)) continue
    if (name === 'docstring-start') {
      const found = pattern.exec(plain.trim())
      if (found) faults.push({ rule: name, line, found: plain.trim().split(/\s+/).slice(0, 4).join(' ') })
    } else if (!name.startsWith('long-'))
      for (const [offset, one] of lines.entries()) {
        const found = pattern.exec(one)
        if (found) faults.push({ rule: name, line: line + offset, found: found[0] })
      }
  }
  if (kind === 'string') return faults
  const isTable = /^\s*\|/.test(plain)
  for (const sentence of isTable ? [] : plain.split(/[.:;?!]\s|\n\s*\n|\n\s*[-*@|]\s?/))
    if (countWords(sentence) > MOST_WORDS.sentence)
      faults.push({
        rule: 'long-sentence',
        line,
        found: `${countWords(sentence)} words: ${sentence.trim().slice(0, 40)}…`,
      })
  if (kind === 'markdown' && !isTable && countWords(plain) > MOST_WORDS.paragraph)
    faults.push({ rule: 'long-paragraph', line, found: `${countWords(plain)} words` })
  return faults
}

const { values, positionals } = parseArgs({
  allowPositionals: true,
  options: { summary: { type: 'boolean', default: false } },
})
const DEFAULT_PATHS = [
  'lib',
  'native',
  'docs',
  'examples',
  'bench',
  'scripts',
  'README.md',
  'CONTRIBUTING.md',
  'CHANGELOG.md',
]
const listed = execFileSync(
  'git',
  ['ls-files', '-co', '--exclude-standard', '--', ...(positionals.length ? positionals : DEFAULT_PATHS)],
  {
    cwd: root,
    encoding: 'utf8',
  },
)
const GENERATED = /^(docs\/api\/|lib\/native\/.*generated|scripts\/lint-language\.mjs$)/
const files = listed
  .split('\n')
  .filter((path) => /\.(ts|mts|mjs|js|cc|h|cu|cuh|md)$/.test(path) && !GENERATED.test(path))

let total = 0
/** @type {Map<string, number>} */
const byRule = new Map()
/** @type {Map<string, number>} */
const byFolder = new Map()
for (const path of files) {
  const source = readFileSync(join(root, path), 'utf8')
  const sourceLines = source.split('\n')
  const passages = path.endsWith('.md')
    ? markdownPassages(source)
    : commentsAndStrings(source, /\.[mj]?[tj]s$/.test(path))
  for (const passage of passages)
    for (const { rule, line, found } of faultsOf(passage)) {
      if (/\blanguage: \S/.test(sourceLines[line - 1] ?? '')) continue
      total++
      byRule.set(rule, (byRule.get(rule) ?? 0) + 1)
      const folder = path
        .split('/')
        .slice(0, /^(lib\/(systems|models)|native\/core)\//.test(path) ? 3 : 2)
        .join('/')
      byFolder.set(folder, (byFolder.get(folder) ?? 0) + 1)
      if (!values.summary) console.log(`${path}:${line}: ${rule}: "${found}": ${rules[rule]?.advice}`)
    }
}
if (values.summary)
  for (const counts of [byRule, byFolder])
    console.log(
      [...counts]
        .sort((one, other) => other[1] - one[1])
        .map(([name, count]) => `${String(count).padStart(6)} ${name}`)
        .join('\n'),
      '\n',
    )
console.log(`language: ${total} ${total === 1 ? 'fault' : 'faults'} in ${files.length} files`)
process.exitCode = total > 0 ? 1 : 0
