export { AudioChat, type AudioChatSettings } from './audio-chat.js'
export type {
  ChatAnswerOptions,
  ChatDelta,
  ChatModality,
  ChatModel,
  ChatModelLoader,
  ChatPart,
  ChatSpeech,
  ChatTask,
  ChatTurn,
  ChatView,
} from './chat-model.js'
export type { ServeLimits, ServeOptions } from './options.js'
export { type Served, serve } from './server.js'
export { TextChat, type TextChatSettings } from './text-chat.js'
