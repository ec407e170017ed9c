// The turns of the conversation, as they are shown.

import { clipItem, element, makeClip } from './clip.js'
import { bars, views } from './insight.js'
import { pictureItem } from './picture.js'

const find = (id) => document.getElementById(id)

/** A list item of a sound, a picture or a film. */
export const itemOf = (clip, remove) => (clip.kind === undefined ? clipItem(clip, remove) : pictureItem(clip, remove))

export function showUser({ clips: sent, text, task }) {
  const list = element('ul', { className: 'clips', ariaLabel: 'Clips' }, ...sent.map((clip) => itemOf(clip)))
  const node = element('article', { className: 'turn user', ariaLabel: 'You' }, element('h3', { textContent: 'You' }))
  if (task) node.firstChild.append(element('span', { className: 'task', textContent: task.title }))
  if (sent.length > 0) node.append(list)
  const words = element('p', { textContent: text })
  if (text) node.append(words)
  show(node)
  return {
    node,
    /** What was heard of the clips. */
    add(piece) {
      if (!words.isConnected) node.append(words)
      words.append(piece)
    },
  }
}

export function showAnswer(name) {
  const text = element('p')
  const node = element('article', { className: 'turn assistant', ariaLabel: 'Answer', ariaBusy: 'true' })
  node.append(element('h3', { textContent: name }), text)
  show(node)
  const beforeText = (part) => {
    const near = atEnd()
    node.insertBefore(part, text)
    if (near) scrollToEnd()
  }
  return {
    node,
    add(piece) {
      const near = atEnd()
      text.append(piece)
      if (near) scrollToEnd()
    },
    /** How likely each label is, and what was looked at: before the words. */
    scores: (shares) => beforeText(bars(shares)),
    views: (all) => beforeText(views(all)),
    end(note) {
      node.ariaBusy = 'false'
      if (note) node.append(element('p', { className: 'note', textContent: note }))
    },
    playing(now) {
      node.dataset.voice = now ? 'playing' : 'silent'
    },
    /** All of the answer's sound, to be heard again. */
    sound(parts, rate) {
      const samples = new Float32Array(parts.reduce((sum, { length }) => sum + length, 0))
      let at = 0
      for (const part of parts) {
        samples.set(part, at)
        at += part.length
      }
      const near = atEnd()
      const clip = clipItem(makeClip('Answer', samples, { rate }))
      node.append(element('ul', { className: 'clips', ariaLabel: 'The answer as sound' }, clip))
      if (near) scrollToEnd()
    },
  }
}

function show(node) {
  find('welcome').hidden = true
  find('log').hidden = false
  find('log').append(node)
  scrollToEnd()
}

const atEnd = () => innerHeight + scrollY >= document.documentElement.scrollHeight - 80
const scrollToEnd = () => scrollTo(0, document.documentElement.scrollHeight)

/** Removes a node with what its clips hold. */
export function discard(node) {
  for (const item of node.querySelectorAll('.clip')) item.discard()
  node.remove()
}
