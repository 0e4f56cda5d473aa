"""What the page is sent: chunk files, film strips, MP4 files, scripts and styles."""
