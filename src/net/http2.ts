/** What servers commonly allow: for peers that announce no limit, and until more is known. */
export const usualMaxStreams = 100;

/** After a close, the peer has this long to close its side. */
export const lingerMs = 1_000;
